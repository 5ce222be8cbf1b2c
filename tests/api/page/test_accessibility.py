"""Accessibility of the page: axe, keyboard, dark scheme, phones, layout shift."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.api.conftest import PHONE, Visit
from tests.api.page.conftest import (
    FIVE,
    Digits,
    draw_with_mouse,
    file,
    layout_shift,
    score_files,
    serious_violations,
    verdicts,
    wait_until_scored,
)

pytestmark = pytest.mark.no_cover  # the server is measured, not its clients


class TestAccessibility:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_reports_no_serious_violation(self, visit: Visit, digit_files: Digits, scheme: str) -> None:
        page = visit(color_scheme=scheme)
        expect(page.locator("#open-card")).to_be_enabled()
        assert serious_violations(page) == []
        score_files(page, file("5.png", digit_files[5][0]), file("7.png", digit_files[7][0]), file("x.txt", b"x"))
        page.locator("#sensitivity").press("Home")
        assert "anomaly" in verdicts(page)
        assert serious_violations(page) == []
        page.click("#open-card")
        page.wait_for_timeout(200)
        assert serious_violations(page) == []

    def test_dark_scheme(self, visit: Visit) -> None:
        colours = {}
        for scheme in ("light", "dark"):
            page = visit(color_scheme=scheme)
            colours[scheme] = [
                sum(map(int, re.findall(r"\d+", page.evaluate(f"getComputedStyle(document.body).{name}"))[:3]))
                for name in ("backgroundColor", "color")
            ]
        dark, bright = 150, 600
        assert colours["light"][0] > bright
        assert colours["light"][1] < dark
        assert colours["dark"][0] < dark
        assert colours["dark"][1] > bright

    def test_keyboard_only(self, visit: Visit) -> None:
        page = visit()
        expect(page.locator("#open-card")).to_be_enabled()

        def tab_to(selector: str) -> None:
            for _ in range(40):
                page.keyboard.press("Tab")
                if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                    assert outline == "solid"
                    return
            raise AssertionError(f"{selector} is not reachable with the tab key")

        tab_to("#samples button:nth-child(1)")
        page.keyboard.press("Enter")
        wait_until_scored(page, 1)
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        wait_until_scored(page, 2)
        tab_to("#sensitivity")
        rate = page.locator("#rate").inner_text()
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#rate")).not_to_have_text(rate)
        assert page.locator("#sensitivity").get_attribute("aria-valuetext") == page.locator("#rate").inner_text()
        tab_to("#columns button")
        page.keyboard.press("Enter")
        expect(page.locator("th[aria-sort]")).to_have_count(1)
        tab_to("#rows button[aria-pressed='false']")
        chosen = page.evaluate("document.activeElement.textContent")
        page.keyboard.press("Enter")
        expect(page.locator("#rows button[aria-pressed='true']")).to_have_text(chosen)

    def test_no_horizontal_scrolling_at_360_pixels(self, visit: Visit, digit_files: Digits) -> None:
        page = visit(**PHONE)
        score_files(page, file("a-rather-long-name-for-an-image-of-a-five.png", digit_files[5][0]))
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate("document.querySelector('.all .table-scroll').scrollWidth") <= 328
        small = page.evaluate(
            """[...document.querySelectorAll("button, select, a, input:not([hidden])")]
               .filter(each => each.checkVisibility() && Math.min(each.offsetHeight, each.offsetWidth) < 24)
               .map(each => each.outerHTML)"""
        )
        assert small == []
        page.click("#open-card")
        assert page.evaluate("document.querySelector('#card').scrollWidth") <= 360

    @pytest.mark.parametrize("options", [{}, PHONE])
    def test_no_layout_shift(self, visit: Visit, options: dict[str, Any]) -> None:
        page = visit(**options)
        expect(page.locator("#open-card")).to_be_enabled()
        draw_with_mouse(page, FIVE[1])
        wait_until_scored(page, 1)
        page.click("#samples button >> nth=3")
        wait_until_scored(page, 2)
        page.locator("#sensitivity").press("Home")
        assert layout_shift(page) < 0.02
