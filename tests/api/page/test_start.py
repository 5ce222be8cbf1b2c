"""How the page opens: it asks for the API key, and does not hide that the default model is missing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.api.conftest import Visit
from tests.api.page.conftest import Digits, file, score_files, serious_violations, verdicts
from tests.support import Server, running_server

pytestmark = pytest.mark.no_cover  # the server is measured, not its clients

KEY = "schlüssel-€"


@pytest.fixture(scope="module")
def closed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that requires a key."""
    log = tmp_path_factory.mktemp("log") / "log"
    with running_server(store, log, model="digits-5", api_keys=KEY) as running:
        yield running


def enter(page: Page, key: str) -> None:
    page.fill("#key-input", key)
    page.click("#key-form button")


class TestKey:
    def test_page_asks_for_the_key_and_keeps_it_for_the_tab(
        self, visit: Visit, closed: Server, digit_files: Digits
    ) -> None:
        page = visit(of=closed)
        expect(page.locator("#key")).to_be_visible()
        expect(page.locator("#key-wrong")).to_be_hidden()
        expect(page.locator("#key-input")).to_be_focused()
        enter(page, KEY)
        expect(page.locator("#key")).to_be_hidden()
        expect(page.locator("#open-card")).to_be_enabled()
        score_files(page, file("5.png", digit_files[5][0]))
        assert verdicts(page) == ["normal"]
        page.reload()
        expect(page.locator("#open-card")).to_be_enabled()
        expect(page.locator("#key")).to_be_hidden()
        another_tab = page.context.new_page()
        another_tab.goto(page.url)
        expect(another_tab.locator("#key")).to_be_visible()

    def test_wrong_key_says_so_and_asks_again(self, visit: Visit, closed: Server) -> None:
        page = visit(of=closed)
        enter(page, "wrong")
        expect(page.locator("#key-wrong")).to_have_text("This key is not valid.")
        expect(page.locator("#key")).to_be_visible()
        assert page.input_value("#key-input") == ""
        enter(page, f" {KEY} ")
        expect(page.locator("#open-card")).to_be_enabled()

    def test_closing_the_dialog_leaves_a_notice_that_asks_again(self, visit: Visit, closed: Server) -> None:
        page = visit(of=closed)
        expect(page.locator("#key")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#notice")).to_contain_text("key")
        page.click("#retry")
        enter(page, KEY)
        expect(page.locator("#open-card")).to_be_enabled()
        expect(page.locator("#notice")).to_be_hidden()

    def test_changed_key_is_asked_for_while_images_wait(
        self, visit: Visit, closed: Server, digit_files: Digits
    ) -> None:
        page = visit(of=closed)
        enter(page, KEY)
        expect(page.locator("#open-card")).to_be_enabled()
        page.evaluate("sessionStorage.setItem('anomaly-api-key', 'old')")
        page.set_input_files("#files", [file("5.png", digit_files[5][0])])
        expect(page.locator("#key-wrong")).to_be_visible()
        enter(page, KEY)
        expect(page.locator("#rows tr.scored")).to_have_count(1)

    def test_model_card_shows_the_report_images(self, visit: Visit, closed: Server) -> None:
        page = visit(of=closed)
        enter(page, KEY)
        page.click("#open-card")
        images = page.locator("#card .report img")
        expect(images.first).to_be_attached()
        assert images.count() >= 3
        for image in images.all():
            image.scroll_into_view_if_needed()
            expect(image).not_to_have_js_property("naturalWidth", 0)
        assert page.locator("#card .report a").count() == 0  # a link could not send the key

    def test_dialog_is_accessible(self, visit: Visit, closed: Server) -> None:
        page = visit(of=closed)
        enter(page, "wrong")
        expect(page.locator("#key-wrong")).to_be_visible()
        assert serious_violations(page) == []

    def test_page_without_keys_does_not_ask(self, visit: Visit) -> None:
        page = visit()
        expect(page.locator("#open-card")).to_be_enabled()
        expect(page.locator("#key")).to_be_hidden()


def test_missing_default_model_is_named_and_no_other_takes_its_place(
    visit: Visit, store: Path, tmp_path: Path, digit_files: Digits
) -> None:
    with running_server(store, tmp_path / "log", ready=False, model="digits-6") as server:
        server.wait_for("/health", 503)
        page = visit(of=server)
        expect(page.locator(".banner")).to_contain_text("The model “digits-6” is not available")
        expect(page.locator(".banner")).to_contain_text("no model named 'digits-6'")
        expect(page.locator("#open-card")).to_be_disabled()
        assert page.locator("#model").input_value() == ""
        page.select_option("#model", "digits-5")
        expect(page.locator(".banner")).to_have_count(0)
        score_files(page, file("5.png", digit_files[5][0]))
        assert verdicts(page) == ["normal"]
        page.goto(page.url.partition("?")[0] + "?model=screws")
        expect(page.locator(".banner")).to_contain_text("The model “screws” is not available")
        page.click(".banner button")  # still missing
        expect(page.locator(".banner")).to_contain_text("The store has no model of this name")
