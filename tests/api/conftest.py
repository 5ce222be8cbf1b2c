"""A real browser for the pages, which must cause no errors and load nothing from other hosts."""

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
        # No host name resolves, so every request to another host fails, and the test sees it.
        arguments = [
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--use-fake-device-for-media-stream",  # a camera that shows a moving pattern
        ]
        with playwright.chromium.launch(executable_path=executable, args=arguments) as running:
            yield running


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Visit]:
    """Opens a path of a server in a new browser profile. Fails at the end if there were errors or other hosts."""
    contexts: list[BrowserContext] = []
    requested: list[str] = []
    errors: list[str] = []

    def add_error(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:  # the page shows these itself
            errors.append(message.text)

    def add_request(request: Request) -> None:
        requested.append(request.url)

    def open_page(path: str = "/", *, of: Server = server, **options: Any) -> Page:
        context = browser.new_context(**options)
        context.set_default_timeout(60_000)  # of a busy machine
        contexts.append(context)
        page = context.new_page()
        page.on("console", add_error)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", add_request)
        page.goto(f"http://127.0.0.1:{of.port}{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    foreign = [url for url in requested if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))]
    assert foreign == []
