"""The API documentation in a real browser that can reach only the service."""

from playwright.sync_api import expect

from tests.api.conftest import Visit
from tests.support import Server


def test_docs_page_shows_every_operation(visit: Visit, server: Server) -> None:
    page = visit("/docs")
    paths = server.client.get("/openapi.json").json()["paths"]
    expect(page.locator(".opblock")).to_have_count(sum(len(methods) for methods in paths.values()))
    shown = page.locator(".opblock-summary-path").all_inner_texts()
    assert {path.replace("\u200b", "") for path in shown} == set(paths)
    page.get_by_role("button", name="Liveness check").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table td.response-col_status").last).to_have_text("200")
    expect(page.locator(".live-responses-table")).to_contain_text("alive")
