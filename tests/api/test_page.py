"""The page in a real browser, over the real service and really trained models."""

import csv
import io
import math
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import FilePayload, Page, expect

from app.inference.store import ModelStore
from tests.api.conftest import PHONE, Visit
from tests.support import ROOT, Server, encode, gradient, make_bundle, running_server
from training.pipeline import Published

pytestmark = pytest.mark.no_cover  # the server's lines are counted, not those of what asks it

expect.set_options(timeout=15_000)

Point = tuple[float, float]
Digits = dict[int, list[bytes]]

FIVE: Sequence[Sequence[Point]] = (
    ((0.7, 0.15), (0.36, 0.17)),
    ((0.36, 0.17), (0.32, 0.45), (0.5, 0.4), (0.68, 0.55), (0.62, 0.78), (0.45, 0.87), (0.27, 0.82)),
)


def file(name: str, data: bytes, media_type: str = "image/png") -> FilePayload:
    return {"name": name, "mimeType": media_type, "buffer": data}


def place(page: Page, point: Point) -> Point:
    box = page.locator("#pad").bounding_box()
    assert box is not None
    return box["x"] + point[0] * box["width"], box["y"] + point[1] * box["height"]


def draw_with_mouse(page: Page, stroke: Sequence[Point]) -> None:
    first, *others = (place(page, point) for point in stroke)
    page.mouse.move(*first)
    page.mouse.down()
    for x, y in others:
        page.mouse.move(x, y, steps=5)
    page.mouse.up()


def draw_with_finger(page: Page, stroke: Sequence[Point]) -> None:
    devtools = page.context.new_cdp_session(page)
    kinds = ["touchStart", *["touchMove"] * (len(stroke) - 1)]
    for kind, (x, y) in zip(kinds, (place(page, point) for point in stroke), strict=True):
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def names(page: Page) -> list[str]:
    return page.locator("#rows .name button").all_inner_texts()


def verdicts(page: Page) -> list[str]:
    return page.locator("#rows .word").all_inner_texts()


def reasons(page: Page) -> list[str]:
    return page.locator("#rows .name p").all_inner_texts()


def wait_until_scored(page: Page, count: int) -> None:
    expect(page.locator("#rows tr")).to_have_count(count)
    expect(page.locator("#rows tr.waiting")).to_have_count(0)


def score_files(page: Page, *files: FilePayload) -> None:
    before = page.locator("#rows tr").count()
    page.set_input_files("#files", list(files))
    wait_until_scored(page, before + len(files))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(ROOT / "model_store", tmp_path_factory.mktemp("log") / "log") as running:
        yield running


class TestDrawing:
    def test_stroke_by_stroke_with_the_mouse(self, visit: Visit, trained: Published) -> None:
        page = visit()
        expect(page.locator("#verdict-word")).to_have_text("Your turn")
        for stroke in FIVE:
            with page.expect_response("**/score?*") as answered:
                draw_with_mouse(page, stroke)
            (result,) = answered.value.json()["results"]
            threshold = trained.manifest.threshold
            word = "Anomaly" if result["score"] > threshold else "Normal"
            expect(page.locator("#verdict-word")).to_have_text(word)
            assert float(page.locator("#number-score").inner_text()) == pytest.approx(result["score"], rel=1e-2)
            for part in ("input", "reconstruction", "error_map"):
                expect(page.locator(f"#picture-{part}")).to_have_attribute("src", result[part])
            assert names(page) == ["drawing 1"]

    def test_a_five_is_normal_for_the_shipped_model_of_fives_wherever_it_is_drawn(
        self, visit: Visit, shipped: Server
    ) -> None:
        page = visit(of=shipped)
        for number, (shrink, shift) in enumerate([(1.0, 0.0), (0.4, 0.55)], start=1):
            for stroke in FIVE:
                draw_with_mouse(page, [(shift + shrink * x, shift + shrink * y) for x, y in stroke])
            wait_until_scored(page, number)
            expect(page.locator("#verdict-word")).to_have_text("Normal")
            page.click("#clear")
        scores = [float(text) for text in page.locator("#rows .number:nth-child(4)").all_inner_texts()]
        assert len(scores) == 2
        assert math.isclose(*scores, rel_tol=0.1)

    def test_undo_and_clear(self, visit: Visit) -> None:
        page = visit()
        draw_with_mouse(page, FIVE[0])
        wait_until_scored(page, 1)
        one_stroke = page.locator("#picture-input").get_attribute("src")
        with page.expect_response("**/score?*"):
            draw_with_mouse(page, FIVE[1])
        expect(page.locator("#picture-input")).not_to_have_attribute("src", str(one_stroke))
        page.keyboard.press("Control+z")
        expect(page.locator("#picture-input")).to_have_attribute("src", str(one_stroke))
        page.click("#undo")
        expect(page.locator("#rows tr")).to_have_count(0)
        expect(page.locator("#undo")).to_be_disabled()
        draw_with_mouse(page, FIVE[0])
        wait_until_scored(page, 1)
        page.click("#clear")
        expect(page.locator("#pad-hint")).to_be_visible()
        draw_with_mouse(page, FIVE[1])
        wait_until_scored(page, 2)
        assert names(page) == ["drawing 1", "drawing 2"]

    def test_with_a_finger_on_a_phone(self, visit: Visit, shipped: Server) -> None:
        page = visit(of=shipped, **PHONE)
        for stroke in FIVE:
            draw_with_finger(page, stroke)
        expect(page.locator("#verdict-word")).to_have_text("Normal")
        assert page.evaluate("scrollY") == 0  # the finger drew, it did not scroll
        expect(page.locator("#verdict-word")).to_be_in_viewport()


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


class TestFiles:
    def test_many_are_scored_in_as_many_requests_as_the_service_wants(
        self, visit: Visit, server: Server, digit_files: Digits
    ) -> None:
        page = visit()
        files = [file(f"{digit}.png", digit_files[digit][0]) for digit in range(10)]
        score_files(page, *files, file("again.png", digit_files[5][1]))  # the service takes 8 at a time
        assert names(page) == [*(f"{digit}.png" for digit in range(10)), "again.png"]
        answers = [
            server.client.post("/score?include=", files={"file": each["buffer"]}).json()["results"][0] for each in files
        ]
        assert verdicts(page)[:10] == [answer["verdict"] for answer in answers]
        assert {"normal", "anomaly"} <= set(verdicts(page))
        anomalies = verdicts(page).count("anomaly")
        expect(page.locator("#summary")).to_have_text(
            f"{anomalies} {'anomaly' if anomalies == 1 else 'anomalies'}, {11 - anomalies} normal"
        )

    def test_what_cannot_be_read_is_refused_in_words(self, visit: Visit, digit_files: Digits) -> None:
        page = visit()
        large = encode(Image.new("L", (2000, 2000)))
        score_files(
            page, file("notes.txt", b"hello", "text/plain"), file("5.png", digit_files[5][0]), file("large.png", large)
        )
        told = reasons(page)
        assert told[0] == "Not a readable image of the formats PNG, JPEG, WEBP, BMP, GIF, TIFF."
        assert told[1] == ""
        assert verdicts(page) == ["not scored", "normal", "not scored"]
        assert "4,000,000 pixels" in told[2]
        page.click("text=notes.txt")
        expect(page.locator("#verdict-word")).to_have_text("Not scored")
        expect(page.locator("#verdict-words")).to_have_text(told[0])

    def test_only_unreadable_ones_and_one_beyond_the_byte_limit(self, visit: Visit) -> None:
        page = visit()
        score_files(page, file("a.txt", b"a", "text/plain"), file("b.txt", b"", "text/plain"))
        score_files(page, file("huge.png", b"x" * (2**20 + 1)))
        told = reasons(page)
        assert told[:2] == [
            "Not a readable image of the formats PNG, JPEG, WEBP, BMP, GIF, TIFF.",
            "The file is empty.",
        ]
        assert "1048576 is the limit" in told[2]

    def test_dropped_folders_and_files(self, visit: Visit, digit_files: Digits, tmp_path: Path) -> None:
        folder = tmp_path / "digits"
        (folder / "deep").mkdir(parents=True)
        (folder / "5.png").write_bytes(digit_files[5][0])
        (folder / "deep" / "7.PNG").write_bytes(digit_files[7][0])
        (folder / "deep" / "notes.txt").write_text("no picture, and not complained about")
        (tmp_path / "alone.png").write_bytes(digit_files[3][0])
        page = visit()
        devtools = page.context.new_cdp_session(page)
        dragged = {"items": [], "files": [str(folder), str(tmp_path / "alone.png")], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "dragOver", "drop"):
            devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 700, "data": dragged})
            if kind == "dragOver":
                expect(page.locator("body.dropping")).to_have_count(1)
        expect(page.locator("body.dropping")).to_have_count(0)
        wait_until_scored(page, 3)
        assert names(page) == ["digits/5.png", "digits/deep/7.PNG", "alone.png"]
        assert all(verdict in {"normal", "anomaly"} for verdict in verdicts(page))

    def test_pasted(self, visit: Visit) -> None:
        page = visit(permissions=["clipboard-read", "clipboard-write"])
        page.evaluate(
            """async () => {
                const blob = await (await fetch("static/samples/five.png")).blob();
                await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
            }"""
        )
        page.keyboard.press("Control+v")
        wait_until_scored(page, 1)
        expect(page.locator("#verdict-word")).to_have_text(re.compile("Normal|Anomaly"))

    def test_names_are_text(self, visit: Visit, digit_files: Digits) -> None:
        page = visit()
        score_files(page, file("<img src=x onerror=alert(1)>.png", digit_files[5][0]))
        assert names(page) == ["<img src=x onerror=alert(1)>.png"]


@pytest.fixture
def scored(visit: Visit, digit_files: Digits) -> Page:
    """Twenty pictures of all digits, under names that are awkward in CSV files."""
    page = visit(accept_downloads=True)
    awkward = {0: '=1+"2", zero.png', 1: "größe 1.png"}
    score_files(
        page,
        *(
            file(awkward.get(digit, f"{digit}-{number}.png") if number == 0 else f"{digit}-{number}.png", data)
            for digit, all_files in digit_files.items()
            for number, data in enumerate(all_files[:2])
        ),
    )
    return page


class TestSensitivity:
    def test_moving_the_slider_decides_anew_as_the_service_would_and_asks_nothing(
        self, scored: Page, server: Server, digit_files: Digits
    ) -> None:
        files = [("file", data) for all_files in digit_files.values() for data in all_files[:2]]
        stops = server.client.get("/models/digits-5/calibration").json()["stops"]
        requests: list[str] = []
        scored.on("request", lambda request: requests.append(request.url))
        seen = set()
        for key, stop in (("Home", stops[-1]), ("End", stops[0]), ("ArrowLeft", stops[1])):
            scored.locator("#sensitivity").press(key)
            expected = [
                result["verdict"]
                for start in (0, 8, 16)
                for result in server.client.post(
                    "/score",
                    files=files[start : start + 8],
                    params={"include": "", "false_alarm_rate": stop["false_alarm_rate"]},
                ).json()["results"]
            ]
            assert verdicts(scored) == expected
            percent = float(f"{100 * stop['false_alarm_rate']:.2g}")
            expect(scored.locator("#rate")).to_have_text(re.compile(rf"\({re.escape(f'{percent:g}%')}\)$"))
            seen.add(tuple(expected))
        assert requests == []
        assert len(seen) > 1

    def test_the_histogram_shows_threshold_and_pictures(self, scored: Page) -> None:
        def line() -> float:
            return float(scored.locator("#histogram .threshold").get_attribute("x1") or "nan")

        below, above = ((each.get_attribute("d") or "").count("M") for each in scored.locator("#histogram .rug").all())
        assert (below, above) == (verdicts(scored).count("normal"), verdicts(scored).count("anomaly"))
        assert below + above == 20
        for name in ("5-1.png", "7-1.png"):
            scored.click(f"text={name}")
            pin = scored.locator("#histogram circle.pin")
            is_anomaly = scored.locator("#verdict-word").inner_text() == "Anomaly"
            assert (float(pin.get_attribute("cx") or "nan") > line()) is is_anomaly
        before = line()
        scored.locator("#sensitivity").press("Home")
        assert line() < before

    def test_the_p_value_comes_in_words(self, scored: Page, server: Server, digit_files: Digits) -> None:
        result = server.client.post("/score?include=", files={"file": digit_files[5][1]}).json()["results"][0]
        scored.click("text=5-1.png")
        expect(scored.locator("#verdict-words")).to_have_text(
            re.compile(rf"^About {round(100 * result['p_value'])} in 100 normal pictures look at least this unusual\.$")
        )


class TestTable:
    def test_every_column_sorts_both_ways(self, scored: Page) -> None:
        def column(number: int) -> list[str]:
            return [text.strip() for text in scored.locator(f"#rows td:nth-child({number})").all_inner_texts()]

        def press(title: str) -> None:
            scored.click(f"#columns button:has-text('{title}')")

        press("Score")
        scores = [float(text) for text in column(4)]
        assert scores == sorted(scores, reverse=True)
        expect(scored.locator("th[aria-sort='descending']")).to_have_text("Score")
        press("Score")
        assert [float(text) for text in column(4)] == scores[::-1]
        press("p-value")
        p_values = [float(text) for text in column(5)]
        assert p_values == sorted(p_values, reverse=True)
        press("Name")
        plain = [f"{digit}-{number}.png" for digit in range(10) for number in range(2)]
        assert column(2) == ['=1+"2", zero.png', *sorted(set(plain) - {"0-0.png", "1-0.png"}), "größe 1.png"]
        press("Verdict")
        assert column(3) == sorted(column(3))
        press("Verdict")
        assert column(3) == sorted(column(3), reverse=True)

    def test_the_csv_file_has_it_all(self, scored: Page, server: Server, digit_files: Digits) -> None:
        score_files(scored, file("notes.txt", b"hello", "text/plain"))
        scored.click("#columns button:has-text('Score')")
        with scored.expect_download() as downloading:
            scored.click("#download")
        assert downloading.value.suggested_filename == "digits-5-scores.csv"
        text = Path(downloading.value.path()).read_text("utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert [row["name"].removeprefix("'") for row in rows] == names(scored)
        assert rows[-1]["status"] == "refused"
        assert rows[-1]["reason"].startswith("not a readable image")
        by_name = {row["name"]: row for row in rows}
        assert '\'=1+"2", zero.png' in by_name
        answer = server.client.post("/score?include=", files={"file": digit_files[7][1]}).json()
        (result,) = answer["results"]
        row = by_name["7-1.png"]
        for key in ("score", "p_value", "mse"):
            assert float(row[key]) == pytest.approx(result[key], rel=1e-5)  # batches round differently
        assert (float(row["threshold"]), float(row["false_alarm_rate"])) == (
            answer["threshold"], answer["false_alarm_rate"],
        )  # fmt: skip
        assert (row["verdict"], row["model"], row["version"]) == (result["verdict"], *answer["model"].values())
        assert row["warnings"] == "; ".join(result["warnings"])

    def test_remove_all(self, scored: Page) -> None:
        scored.click("#remove")
        expect(scored.locator("#rows tr")).to_have_count(0)
        expect(scored.locator("#verdict-word")).to_have_text("Your turn")
        expect(scored.locator("#download")).to_be_disabled()


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
        TestForEveryone.check(page)
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


class TestTrouble:
    def test_a_busy_service_is_asked_again_when_it_says(self, visit: Visit, store: Path, tmp_path: Path) -> None:
        large = encode(gradient(3000, 3000))
        with running_server(store, tmp_path / "log", model="digits-5", max_files=4, queue_size=4) as server:
            page = visit(of=server)
            expect(page.locator("#open-card")).to_be_enabled()
            pressing = True

            def press(_: int) -> None:
                while pressing:
                    server.client.post("/score?include=", files=[("file", large)] * 4)

            with ThreadPoolExecutor(4) as pool:
                load = [pool.submit(press, number) for number in range(4)]
                try:
                    with page.expect_response(lambda response: response.status == 429) as refused:
                        for _ in range(20):
                            page.click("#samples button >> nth=0")
                    assert refused.value.headers["retry-after"] == "1"
                    expect(page.locator("#notice")).to_contain_text("4 is the limit. Trying again in")
                finally:
                    pressing = False
                for each in load:
                    each.result()
            wait_until_scored(page, 20)
            expect(page.locator("#notice")).to_be_hidden()
            assert set(verdicts(page)) <= {"normal", "anomaly"}

    def test_without_a_connection_it_says_so_and_tries_everything_again(
        self, visit: Visit, digit_files: Digits
    ) -> None:
        page = visit()
        expect(page.locator("#open-card")).to_be_enabled()
        page.context.set_offline(True)
        page.set_input_files("#files", [file(f"{number}.png", digit_files[5][number]) for number in range(20)])
        expect(page.locator("#notice")).to_contain_text("The service does not answer.")
        expect(page.locator("#verdict-word")).to_have_text("Not scored")
        expect(page.locator("#rows tr.failed")).to_have_count(20)
        page.context.set_offline(False)
        page.click("#again")
        expect(page.locator("#notice")).to_be_hidden()
        expect(page.locator("#rows tr.scored")).to_have_count(20)

    def test_when_the_service_is_back_what_failed_is_scored_too(self, visit: Visit) -> None:
        page = visit()
        expect(page.locator("#open-card")).to_be_enabled()
        page.context.set_offline(True)
        draw_with_mouse(page, FIVE[1])
        expect(page.locator("#rows tr.failed")).to_have_count(1)
        page.context.set_offline(False)
        page.click("#samples button >> nth=0")
        expect(page.locator("#rows tr.scored")).to_have_count(2)
        expect(page.locator("#notice")).to_be_hidden()

    def test_the_page_follows_the_store_from_nothing_to_a_model_to_its_next_version(
        self, visit: Visit, tmp_path: Path
    ) -> None:
        store = ModelStore(tmp_path / "store")
        with running_server(store.root, tmp_path / "log", ready=False, model="m") as server:
            page = visit(of=server)
            expect(page.locator("#notice")).to_contain_text("The store holds no model")
            store.publish(*make_bundle("m", seed=1))
            server.wait_for("/health/ready", 200)
            page.click("#again")
            expect(page.locator("#notice")).to_be_hidden()
            picture = encode(gradient())
            score_files(page, file("a.png", picture))
            old = page.locator("#number-threshold").inner_text()
            manifest, files = make_bundle("m", seed=2)
            store.publish(manifest, files)
            deadline = time.monotonic() + 15
            while server.client.get("/health").json()["model"]["version"] != manifest.version:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            score_files(page, file("b.png", picture))
            # What the old version said is void: thresholds and scores are the new one's.
            expect(page.locator("#number-threshold")).not_to_have_text(old)
            expect(page.locator("#rows tr.waiting")).to_have_count(0)
            first, second = page.locator("#rows .number:nth-child(4)").all_inner_texts()
            assert first == second


class TestForEveryone:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_no_serious_fault(self, visit: Visit, digit_files: Digits, scheme: str) -> None:
        page = visit(color_scheme=scheme)
        expect(page.locator("#open-card")).to_be_enabled()
        self.check(page)
        score_files(page, file("5.png", digit_files[5][0]), file("7.png", digit_files[7][0]), file("x.txt", b"x"))
        page.locator("#sensitivity").press("Home")
        assert "anomaly" in verdicts(page)
        self.check(page)
        page.click("#open-card")
        page.wait_for_timeout(200)
        self.check(page)

    @staticmethod
    def check(page: Page) -> None:
        found = Axe().run(page)
        faults = [
            (each["id"], each["impact"], [node["html"] for node in each["nodes"]])
            for each in found.response["violations"]
            if each["impact"] in {"serious", "critical"}
        ]
        assert faults == []
        assert len(found.response["passes"]) > 15

    def test_dark_is_dark(self, visit: Visit) -> None:
        colours = {}
        for scheme in ("light", "dark"):
            page = visit(color_scheme=scheme)
            colours[scheme] = [
                sum(map(int, re.findall(r"\d+", page.evaluate(f"getComputedStyle(document.body).{what}"))[:3]))
                for what in ("backgroundColor", "color")
            ]
        dark, bright = 150, 600
        assert colours["light"][0] > bright
        assert colours["light"][1] < dark
        assert colours["dark"][0] < dark
        assert colours["dark"][1] > bright

    def test_with_the_keyboard_alone(self, visit: Visit) -> None:
        page = visit()
        expect(page.locator("#open-card")).to_be_enabled()

        def tab_to(selector: str) -> None:
            for _ in range(40):
                page.keyboard.press("Tab")
                if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                    assert outline == "solid"
                    return
            raise AssertionError(f"the tab key does not lead to {selector}")

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

    def test_a_phone_of_360_pixels_needs_no_sideways_scrolling(self, visit: Visit, digit_files: Digits) -> None:
        page = visit(**PHONE)
        score_files(page, file("a-rather-long-name-for-a-picture-of-a-five.png", digit_files[5][0]))
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate("document.querySelector('.all .sheet').scrollWidth") <= 328
        small = page.evaluate(
            """[...document.querySelectorAll("button, select, a, input:not([hidden])")]
               .filter(each => each.checkVisibility() && Math.min(each.offsetHeight, each.offsetWidth) < 24)
               .map(each => each.outerHTML)"""
        )
        assert small == []
        page.click("#open-card")
        assert page.evaluate("document.querySelector('#card').scrollWidth") <= 360

    @pytest.mark.parametrize("options", [{}, PHONE])
    def test_nothing_jumps(self, visit: Visit, options: dict[str, Any]) -> None:
        page = visit(**options)
        expect(page.locator("#open-card")).to_be_enabled()
        draw_with_mouse(page, FIVE[1])
        wait_until_scored(page, 1)
        page.click("#samples button >> nth=3")
        wait_until_scored(page, 2)
        page.locator("#sensitivity").press("Home")
        shifted = page.evaluate(
            """() => new Promise(resolve => new PerformanceObserver(list => resolve(
                list.getEntries().reduce((sum, entry) => sum + entry.value, 0)
            )).observe({ type: "layout-shift", buffered: true }) || setTimeout(() => resolve(0), 300))"""
        )
        assert shifted < 0.02
