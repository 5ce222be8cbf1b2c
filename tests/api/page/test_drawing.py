"""The drawing pad."""

import math

import pytest
from playwright.sync_api import expect

from tests.api.conftest import PHONE, Visit
from tests.api.page.conftest import (
    FIVE,
    draw_with_finger,
    draw_with_mouse,
    expect_picture,
    names,
    wait_until_scored,
)
from tests.support import Server
from training.run import Published

pytestmark = pytest.mark.no_cover  # the server is measured, not its clients


class TestDrawing:
    def test_each_mouse_stroke_is_scored(self, visit: Visit, trained: Published) -> None:
        page = visit()
        expect(page.locator("#verdict-title")).to_have_text("No image yet")
        for stroke in FIVE:
            with page.expect_response("**/score?*") as answered:
                draw_with_mouse(page, stroke)
            (result,) = answered.value.json()["results"]
            threshold = trained.manifest.threshold
            title = "Anomaly" if result["score"] > threshold else "Normal"
            expect(page.locator("#verdict-title")).to_have_text(title)
            assert float(page.locator("#number-score").inner_text()) == pytest.approx(result["score"], rel=1e-2)
            for part in ("input", "reconstruction", "error_map"):
                expect_picture(page, f"#image-{part}", result[part])
            assert names(page) == ["drawing 1"]

    def test_shipped_model_finds_a_five_normal_at_any_size_and_position(self, visit: Visit, shipped: Server) -> None:
        page = visit(of=shipped)
        for number, (shrink, shift) in enumerate([(1.0, 0.0), (0.4, 0.55)], start=1):
            for stroke in FIVE:
                draw_with_mouse(page, [(shift + shrink * x, shift + shrink * y) for x, y in stroke])
            wait_until_scored(page, number)
            expect(page.locator("#verdict-title")).to_have_text("Normal")
            page.click("#clear")
        scores = [float(text) for text in page.locator("#rows .number:nth-child(4)").all_inner_texts()]
        assert len(scores) == 2
        assert math.isclose(*scores, rel_tol=0.1)

    def test_undo_and_clear(self, visit: Visit) -> None:
        page = visit()
        with page.expect_response("**/score?*") as answered:
            draw_with_mouse(page, FIVE[0])
        one_stroke = answered.value.json()["results"][0]["input"]
        with page.expect_response("**/score?*") as answered:
            draw_with_mouse(page, FIVE[1])
        two_strokes = answered.value.json()["results"][0]["input"]
        assert two_strokes != one_stroke
        expect_picture(page, "#image-input", two_strokes)
        page.keyboard.press("Control+z")
        expect_picture(page, "#image-input", one_stroke)
        page.click("#undo")
        expect(page.locator("#rows tr")).to_have_count(0)
        expect(page.locator("#undo")).to_be_disabled()
        draw_with_mouse(page, FIVE[0])
        wait_until_scored(page, 1)
        page.click("#clear")
        expect(page.locator("#pad-hint")).to_be_visible()
        draw_with_mouse(page, FIVE[1])
        wait_until_scored(page, 2)
        assert sorted(names(page)) == ["drawing 1", "drawing 2"]

    def test_touch_drawing_on_a_phone(self, visit: Visit, shipped: Server) -> None:
        page = visit(of=shipped, **PHONE)
        for stroke in FIVE:
            draw_with_finger(page, stroke)
        expect(page.locator("#verdict-title")).to_have_text("Normal")
        assert page.evaluate("scrollY") == 0  # drawing does not scroll the page
        expect(page.locator("#verdict-title")).to_be_in_viewport()
