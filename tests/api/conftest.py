"""A real browser for the page. What is opened in it must break nothing and ask nothing of another host."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from tests.support import Server

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"none of the browsers {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        # No name resolves: even an attempt to reach another host is seen, and fails.
        arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        with playwright.chromium.launch(executable_path=executable, args=arguments) as running:
            yield running


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Visit]:
    """Opens a path of a server, `server` by default, in a fresh profile; checks at the end that all went well."""
    contexts: list[BrowserContext] = []
    asked: list[str] = []
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:  # the page puts it in words
            complaints.append(message.text)

    def note(request: Request) -> None:
        asked.append(request.url)

    def open_page(path: str = "/", *, of: Server = server, **options: Any) -> Page:
        context = browser.new_context(**options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", note)
        page.goto(f"http://127.0.0.1:{of.port}{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    foreign = [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))]
    assert foreign == []
