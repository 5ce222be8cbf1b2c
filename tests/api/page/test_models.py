"""Other models on the page, all of them at once, and pictures that change."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from app.inference.bundles.store import ModelStore
from tests.api.conftest import PHONE, Visit
from tests.api.page.conftest import Digits, file, score_files, serious_faults
from tests.support import ROOT, Server, encode, gradient, make_bundle, running_server
from training.pipeline import Published

pytestmark = pytest.mark.no_cover  # the server's lines are counted, not those of what asks it


class TestDrift:
    @pytest.mark.parametrize("device", [{}, PHONE], ids=["desk", "phone"])
    def test_changed_pictures_are_told_of_where_nothing_moves(
        self, visit: Visit, tmp_path: Path, device: dict[str, Any]
    ) -> None:
        with running_server(ROOT / "model_store", tmp_path / "log") as server:
            page = visit(of=server, **device)
            expect(page.locator("#lead")).to_contain_text("The worse it redraws yours")

            def places() -> list[Any]:
                return [page.locator(each).bounding_box() for each in ("#pad", "#verdict", "#sensitivity", "#columns")]

            before, grey = places(), encode(Image.new("L", (28, 28), 128))
            for _ in range(4):
                server.client.post("/score?include=", files=[("file", grey)] * 50)
            deadline = time.monotonic() + 15
            while server.client.get("/models/mnist-5/drift").json()["verdict"] != "changed":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            page.reload()
            expect(page.locator("#lead")).to_contain_text("The last 200 it was sent look more unusual")
            expect(page.locator("#lead")).not_to_contain_text("The worse it redraws yours")
            assert places() == before
            page.context.close()


class TestModels:
    def test_another_model_scores_everything_again(self, visit: Visit, digit_files: Digits) -> None:
        page = visit()
        score_files(page, file("5.png", digit_files[5][0]))
        before = page.locator("#number-score").inner_text()
        with page.expect_response("**/score?model=colour*") as answered:
            page.select_option("#model", "colour")
        (result,) = answered.value.json()["results"]
        expect(page.locator("#rows tr.waiting")).to_have_count(0)
        expect(page.locator("#number-score")).not_to_have_text(before)
        assert float(page.locator("#number-score").inner_text()) == pytest.approx(result["score"], rel=1e-2)
        expect(page.locator("#histogram svg")).to_have_attribute("aria-label", re.compile("99 normal pictures"))
        page.click("#open-card")
        expect(page.locator("#card h2")).to_have_text("colour")
        expect(page.locator("#card")).not_to_contain_text("AUROC")  # it was never evaluated

    def test_the_card_shows_figures_and_the_report(self, visit: Visit, trained: Published) -> None:
        page = visit()
        page.click("#open-card")
        card = page.locator("#card")
        expect(card.locator("h2")).to_have_text("digits-5")
        evaluation = trained.manifest.evaluation
        assert evaluation is not None
        expect(card).to_contain_text(f"{evaluation.auroc:.4f}")
        expect(card).to_contain_text(trained.manifest.files["model.pt"].sha256)
        pictures = card.locator(".report img")
        assert pictures.count() == sum(name.endswith(".png") for name in trained.manifest.files)
        for picture in pictures.all():
            picture.scroll_into_view_if_needed()
            picture.evaluate("image => image.decode()")
        with page.context.expect_page() as opened:
            card.get_by_text("The whole report").click()
        expect(opened.value.locator("h1")).to_have_text("digits-5")
        opened.value.close()
        page.keyboard.press("Escape")
        expect(card).to_be_hidden()
        expect(page.locator("#open-card")).to_be_focused()


class TestAllModels:
    def test_every_model_is_asked_about_the_chosen_picture(
        self, visit: Visit, server: Server, digit_files: Digits, tmp_path: Path
    ) -> None:
        page = visit()
        expect(page.locator("#ask-all")).to_be_disabled()  # about what?
        score_files(page, file("7.png", digit_files[7][0]), file("5.png", digit_files[5][0]))
        page.click("text=5.png")
        page.locator("#ask-all").focus()
        page.keyboard.press("Enter")
        rows = page.locator("#everyone tbody tr")
        expect(page.locator("#everyone [role=status]")).to_contain_text("an anomaly for")
        expect(page.locator("#everyone h2")).to_have_text("What every model says of 5.png")
        assert rows.locator("th button").all_inner_texts() == ["colour", "digits-5"]
        for row in rows.all():
            name = row.locator("button").inner_text()
            answer = server.client.post(
                "/score", params={"include": "", "model": name}, files={"file": digit_files[5][0]}
            ).json()
            (result,) = answer["results"]
            expect(row.locator(".word")).to_have_text(result["verdict"])
            numbers = [float(text) for text in row.locator(".number").all_inner_texts()]
            assert numbers == pytest.approx([result["score"], answer["threshold"], result["p_value"]], rel=0.02)
        assert serious_faults(page) == []
        page.keyboard.press("Escape")
        expect(page.locator("#everyone")).to_be_hidden()
        expect(page.locator("#ask-all")).to_be_focused()
        page.keyboard.press("Enter")
        with page.expect_response("**/score?model=colour&include=input*"):
            rows.locator("button", has_text="colour").click()
        expect(page.locator("#everyone")).to_be_hidden()
        assert page.locator("#model").input_value() == "colour"

    def test_a_model_that_is_out_of_order_says_so_in_its_row_on_a_phone_too(self, visit: Visit, tmp_path: Path) -> None:
        store = ModelStore(tmp_path / "store")
        for seed, name in enumerate(("first", "second", "third-of-a-long-name-that-breaks")):
            store.publish(*make_bundle(name, seed=seed))
        model = store.root / "second" / store.current("second") / "model.pt"
        model.write_bytes(b"")
        with running_server(store.root, tmp_path / "log", model="first") as server:
            page = visit(of=server, **PHONE)
            score_files(page, file("a.png", encode(gradient())))
            page.click("#ask-all")
            expect(page.locator("#everyone [role=status]")).to_contain_text("not scored by 1")
            row = page.locator("#everyone tr", has_text="second")
            expect(row.locator(".word")).to_contain_text("not scored")
            expect(row.locator("p")).to_contain_text("model.pt has 0 bytes")
            assert page.evaluate("document.documentElement.scrollWidth") == 360
            assert page.locator("#everyone").evaluate("dialog => dialog.scrollWidth") <= 360
            assert page.locator("#everyone .sheet").evaluate("sheet => sheet.scrollWidth - sheet.clientWidth") == 0

    def test_a_store_of_one_model_offers_no_such_thing(self, visit: Visit, shipped: Server) -> None:
        page = visit(of=shipped)
        score_files(page, file("a.png", encode(gradient())))
        expect(page.locator("#ask-all")).to_be_hidden()
