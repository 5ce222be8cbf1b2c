"""Makes docs/page.png, a screenshot of the page: ``python docs/page_screenshot.py [URL]`` while the service is running.

Drives an installed Chromium with Playwright (https://playwright.dev/python). Scores the samples, then draws a seven.
"""

import io
import shutil
import sys
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from sample_images import SAMPLES, smooth

SCREENSHOT: Final = Path(__file__).resolve().parent / "page.png"


def draw(page: Page, kind: str) -> None:
    """Draws the strokes of a sample on the pad with the mouse."""
    box = page.locator("#pad").bounding_box()
    if box is None:
        raise SystemExit("error: the page shows no drawing pad")
    for stroke in SAMPLES[kind]:
        first, *others = (
            (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in smooth(stroke, steps=8)
        )
        page.mouse.move(*first)
        page.mouse.down()
        for x, y in others:
            page.mouse.move(x, y)
        page.mouse.up()


def main() -> None:
    """Scores the samples, draws a seven and saves the screenshot."""
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium") or shutil.which("google-chrome"))
        page = browser.new_page(viewport={"width": 1200, "height": 900}, device_scale_factor=1.5)
        page.goto(url)
        expect(page.locator("#open-card")).to_be_enabled()
        for sample in page.locator("#samples button").all():
            sample.click()
        draw(page, "seven")
        expect(page.locator("#rows tr:not(.waiting)")).to_have_count(len(SAMPLES) + 2)
        page.click("#columns button:has-text('Score')")
        page.mouse.move(0, 0)
        screenshot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
        screenshot.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(SCREENSHOT, optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
