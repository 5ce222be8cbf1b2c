"""Model choice, model card, model comparison and the drift notice on the page."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from app.inference.bundles.store import ModelStore
from tests.api.conftest import PHONE, Visit
from tests.api.page.conftest import Digits, file, layout_shift, score_files, serious_violations
from tests.support import ROOT, Server, encode, gradient, make_bundle, running_server
from training.reporting.samples import is_sample
from training.run import Published

pytestmark = pytest.mark.no_cover  # the server is measured, not its clients


class TestDrift:
    @pytest.mark.parametrize("device", [{}, PHONE], ids=["desk", "phone"])
    def test_drift_is_told_in_words_without_a_layout_shift(
        self, visit: Visit, tmp_path: Path, device: dict[str, Any]
    ) -> None:
        with running_server(ROOT / "model_store", tmp_path / "log") as server:
            page = visit(of=server, **device)
            expect(page.locator("#open-card")).to_be_enabled()
            expect(page.locator(".banner")).to_have_count(0)
            grey = encode(Image.new("L", (28, 28), 128))
            for _ in range(4):
                server.client.post("/score?include=", files=[("file", grey)] * 50)
            deadline = time.monotonic() + 15
            while server.client.get("/models/mnist-5/drift").json()["verdict"] != "changed":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            page.reload()
            expect(page.locator(".banner")).to_contain_text("The last 200 images score higher")
            expect(page.locator(".banner")).to_contain_text("Check light, camera and product")
            assert layout_shift(page) < 0.02
            page.context.close()


class TestModels:
    def test_choosing_another_model_scores_all_images_again(self, visit: Visit, digit_files: Digits) -> None:
        page = visit()
        score_files(page, file("5.png", digit_files[5][0]))
        before = page.locator("#number-score").inner_text()
        with page.expect_response("**/score?model=colour*") as answered:
            page.select_option("#model", "colour")
        (result,) = answered.value.json()["results"]
        expect(page.locator("#rows tr.waiting")).to_have_count(0)
        expect(page.locator("#number-score")).not_to_have_text(before)
        assert float(page.locator("#number-score").inner_text()) == pytest.approx(result["score"], rel=1e-2)
        expect(page.locator("#histogram svg")).to_have_attribute("aria-label", re.compile("99 normal images"))
        page.click("#open-card")
        expect(page.locator("#card h2")).to_have_text("colour")
        expect(page.locator("#card")).not_to_contain_text("AUROC")  # this model has no evaluation

    def test_model_card_shows_evaluation_and_report(self, visit: Visit, trained: Published) -> None:
        page = visit()
        page.click("#open-card")
        card = page.locator("#card")
        expect(card.locator("h2")).to_have_text("digits-5")
        evaluation = trained.manifest.evaluation
        assert evaluation is not None
        expect(card).to_contain_text(f"{evaluation.auroc:.4f}")
        expect(card).to_contain_text(trained.manifest.files["model.pt"].sha256)
        figures = card.locator(".report img")
        charts = [name for name in trained.manifest.files if name.endswith(".png") and not is_sample(name)]
        assert figures.count() == len(charts)
        for figure in figures.all():
            figure.scroll_into_view_if_needed()
            figure.evaluate("image => image.decode()")
        with page.context.expect_page() as opened:
            card.get_by_text("Full report").click()
        expect(opened.value.locator("h1")).to_have_text("digits-5")
        opened.value.close()
        page.keyboard.press("Escape")
        expect(card).to_be_hidden()
        expect(page.locator("#open-card")).to_be_focused()


class TestModelComparison:
    def test_selected_image_is_scored_with_every_model(
        self, visit: Visit, server: Server, digit_files: Digits, tmp_path: Path
    ) -> None:
        page = visit()
        expect(page.locator("#compare")).to_be_disabled()  # no image is selected
        score_files(page, file("7.png", digit_files[7][0]), file("5.png", digit_files[5][0]))
        page.click("text=5.png")
        page.locator("#compare").focus()
        page.keyboard.press("Enter")
        rows = page.locator("#comparison tbody tr")
        expect(page.locator("#comparison [role=status]")).to_contain_text("anomaly for")
        expect(page.locator("#comparison h2")).to_have_text("All models: 5.png")
        assert rows.locator("th button").all_inner_texts() == ["colour", "digits-5"]
        for row in rows.all():
            name = row.locator("button").inner_text()
            answer = server.client.post(
                "/score", params={"include": "", "model": name}, files={"file": digit_files[5][0]}
            ).json()
            (result,) = answer["results"]
            expect(row.locator(".verdict-cell")).to_have_text(result["verdict"])
            numbers = [float(text) for text in row.locator(".number").all_inner_texts()]
            assert numbers == pytest.approx([result["score"], answer["threshold"], result["p_value"]], rel=0.02)
        assert serious_violations(page) == []
        page.keyboard.press("Escape")
        expect(page.locator("#comparison")).to_be_hidden()
        expect(page.locator("#compare")).to_be_focused()
        page.keyboard.press("Enter")
        with page.expect_response("**/score?model=colour&include=input*"):
            rows.locator("button", has_text="colour").click()
        expect(page.locator("#comparison")).to_be_hidden()
        assert page.locator("#model").input_value() == "colour"

    def test_row_of_an_unavailable_model_shows_the_error_on_a_phone(self, visit: Visit, tmp_path: Path) -> None:
        store = ModelStore(tmp_path / "store")
        for seed, name in enumerate(("first", "second", "third-with-a-long-name-that-wraps")):
            store.publish(*make_bundle(name, seed=seed))
        model = store.root / "second" / store.current("second") / "model.pt"
        model.write_bytes(b"")
        with running_server(store.root, tmp_path / "log", model="first") as server:
            page = visit(of=server, **PHONE)
            score_files(page, file("a.png", encode(gradient())))
            page.click("#compare")
            expect(page.locator("#comparison [role=status]")).to_contain_text("not scored by 1")
            row = page.locator("#comparison tr", has_text="second")
            expect(row.locator(".verdict-cell")).to_contain_text("not scored")
            expect(row.locator("p")).to_contain_text("model.pt has 0 bytes")
            assert page.evaluate("document.documentElement.scrollWidth") == 360
            assert page.locator("#comparison").evaluate("dialog => dialog.scrollWidth") <= 360
            assert (
                page.locator("#comparison .table-scroll").evaluate("region => region.scrollWidth - region.clientWidth")
                == 0
            )

    def test_comparison_is_hidden_for_a_single_model(self, visit: Visit, shipped: Server) -> None:
        page = visit(of=shipped)
        score_files(page, file("a.png", encode(gradient())))
        expect(page.locator("#compare")).to_be_hidden()
