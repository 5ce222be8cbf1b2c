"""Image files, the sensitivity slider and the table of the page."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.api.conftest import Visit
from tests.api.page.conftest import (
    NAMES,
    Digits,
    file,
    names,
    reasons,
    score_files,
    verdict_of,
    verdicts,
    wait_until_scored,
)
from tests.support import Server, encode

pytestmark = pytest.mark.no_cover  # the server is measured, not its clients


class TestFiles:
    def test_more_images_than_the_limit_are_scored_in_several_requests(
        self, visit: Visit, server: Server, digit_files: Digits
    ) -> None:
        page = visit()
        files = [file(f"{digit}.png", digit_files[digit][0]) for digit in range(10)]
        score_files(page, *files, file("again.png", digit_files[5][1]))  # the server accepts 8 files a request
        assert sorted(names(page)) == [*(f"{digit}.png" for digit in range(10)), "again.png"]
        answers = [
            server.client.post("/score?include=", files={"file": each["buffer"]}).json()["results"][0] for each in files
        ]
        shown = verdict_of(page)
        assert [shown[f"{digit}.png"] for digit in range(10)] == [answer["verdict"] for answer in answers]
        assert {"normal", "anomaly"} <= set(shown.values())
        anomalies = verdicts(page).count("anomaly")
        assert verdicts(page) == ["anomaly"] * anomalies + ["normal"] * (11 - anomalies)  # anomalies first
        expect(page.locator("#summary")).to_have_text(f"{anomalies} of 11 anomalies")
        expect(page.locator("#result-heading")).to_have_text(names(page)[0])

    def test_unreadable_files_are_rejected_with_a_reason(self, visit: Visit, digit_files: Digits) -> None:
        page = visit()
        large = encode(Image.new("L", (2000, 2000)))
        score_files(
            page, file("notes.txt", b"hello", "text/plain"), file("5.png", digit_files[5][0]), file("large.png", large)
        )
        shown = reasons(page)
        assert shown[0] == "Not a readable image of the formats PNG, JPEG, WEBP, BMP, GIF, TIFF, AVIF, JPEG2000."
        assert "4,000,000 pixels" in shown[1]
        assert shown[2] == ""
        assert verdicts(page) == ["not readable", "not readable", "normal"]
        expect(page.locator("#summary")).to_have_text("0 of 3 anomalies, 2 not readable")
        page.click("text=notes.txt")
        expect(page.locator("#verdict-title")).to_have_text("Not readable")
        expect(page.locator("#verdict-text")).to_have_text(shown[0])

    def test_requests_without_a_readable_file_and_too_large_a_file(self, visit: Visit) -> None:
        page = visit()
        score_files(page, file("a.txt", b"a", "text/plain"), file("b.txt", b"", "text/plain"))
        score_files(page, file("huge.png", b"x" * (2**20 + 1)))
        shown = reasons(page)
        assert shown[:2] == [
            "Not a readable image of the formats PNG, JPEG, WEBP, BMP, GIF, TIFF, AVIF, JPEG2000.",
            "The file is empty.",
        ]
        assert "1048576 is the limit" in shown[2]

    def test_drop_of_folders_and_files(self, visit: Visit, digit_files: Digits, tmp_path: Path) -> None:
        folder = tmp_path / "digits"
        (folder / "deep").mkdir(parents=True)
        (folder / "5.png").write_bytes(digit_files[5][0])
        (folder / "deep" / "7.PNG").write_bytes(digit_files[7][0])
        (folder / "deep" / "notes.txt").write_text("not an image, skipped without an error")
        (tmp_path / "alone.png").write_bytes(digit_files[3][0])
        page = visit()
        devtools = page.context.new_cdp_session(page)
        dragged = {"items": [], "files": [str(folder), str(tmp_path / "alone.png")], "dragOperationsMask": 1}

        highlighted = False
        while not names(page):  # Chromium ignores a drop before the page has answered the events before it
            for kind in ("dragEnter", "dragOver", "dragOver", "drop"):
                devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 700, "data": dragged})
                page.wait_for_timeout(200)
                highlighted |= page.locator("body.dropping").count() == 1
            for _ in range(50):
                page.wait_for_timeout(0 if names(page) else 100)
        assert highlighted
        expect(page.locator("body.dropping")).to_have_count(0)
        wait_until_scored(page, 3)
        assert sorted(names(page)) == ["alone.png", "digits/5.png", "digits/deep/7.PNG"]
        assert all(verdict in {"normal", "anomaly"} for verdict in verdicts(page))

    def test_paste(self, visit: Visit) -> None:
        page = visit(permissions=["clipboard-read", "clipboard-write"])
        page.evaluate(
            """async () => {
                const blob = await (await fetch("static/samples/five.png")).blob();
                await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
            }"""
        )
        page.keyboard.press("Control+v")
        wait_until_scored(page, 1)
        expect(page.locator("#verdict-title")).to_have_text(re.compile("Normal|Anomaly"))

    def test_file_names_are_never_markup(self, visit: Visit, digit_files: Digits) -> None:
        page = visit()
        score_files(page, file("<img src=x onerror=alert(1)>.png", digit_files[5][0]))
        assert names(page) == ["<img src=x onerror=alert(1)>.png"]


class TestSensitivity:
    def test_slider_gives_the_verdicts_of_the_service_without_requests(
        self, scored: Page, server: Server, digit_files: Digits
    ) -> None:
        files = [("file", data) for all_files in digit_files.values() for data in all_files[:2]]
        stops = server.client.get("/models/digits-5/calibration").json()["stops"]
        requests: list[str] = []
        scored.on("request", lambda request: requests.append(request.url))
        seen = set()
        for pressed, stop in (("Home", stops[-1]), ("End", stops[0]), ("ArrowLeft", stops[1])):
            scored.locator("#sensitivity").press(pressed)
            expected = [
                result["verdict"]
                for start in (0, 8, 16)
                for result in server.client.post(
                    "/score",
                    files=files[start : start + 8],
                    params={"include": "", "false_alarm_rate": stop["false_alarm_rate"]},
                ).json()["results"]
            ]
            shown = verdict_of(scored)
            assert [shown[NAMES.get(key, f"{key[0]}-{key[1]}.png")] for key in np.ndindex(10, 2)] == expected
            percent = float(f"{100 * stop['false_alarm_rate']:.2g}")
            expect(scored.locator("#rate")).to_have_text(re.compile(rf"\({re.escape(f'{percent:g}%')}\)$"))
            seen.add(tuple(expected))
        assert [url for url in requests if "/score?" in url] == []
        assert len(seen) > 1

    def test_histogram_shows_threshold_and_images(self, scored: Page) -> None:
        def threshold_x() -> float:
            return float(scored.locator("#histogram .threshold").get_attribute("x1") or "nan")

        below, above = ((each.get_attribute("d") or "").count("M") for each in scored.locator("#histogram .rug").all())
        assert (below, above) == (verdicts(scored).count("normal"), verdicts(scored).count("anomaly"))
        assert below + above == 20
        for name in ("5-1.png", "7-1.png"):
            scored.click(f"text={name}")
            pin = scored.locator("#histogram circle.pin")
            is_anomaly = scored.locator("#verdict-title").inner_text() == "Anomaly"
            assert (float(pin.get_attribute("cx") or "nan") > threshold_x()) is is_anomaly
        before = threshold_x()
        scored.locator("#sensitivity").press("Home")
        assert threshold_x() < before

    def test_p_value_is_explained_as_a_frequency(self, scored: Page, server: Server, digit_files: Digits) -> None:
        result = server.client.post("/score?include=", files={"file": digit_files[5][1]}).json()["results"][0]
        scored.click("text=5-1.png")
        expect(scored.locator("#verdict-text")).to_have_text(
            re.compile(
                rf"^About {round(100 * result['p_value'])} in 100 normal images (is|are) at least this unusual\.$"
            )
        )


class TestTable:
    def test_columns_sort_in_both_directions(self, scored: Page) -> None:
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

    def test_csv_download(self, scored: Page, server: Server, digit_files: Digits) -> None:
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

    def test_remove_all_can_be_undone(self, scored: Page) -> None:
        scored.click("#remove")
        expect(scored.locator("#rows tr")).to_have_count(0)
        expect(scored.locator("#verdict-title")).to_have_text("No image yet")
        expect(scored.locator("#download")).to_be_disabled()
        expect(scored.locator("#notice")).to_contain_text("20 images were removed")
        requests: list[str] = []
        scored.on("request", lambda request: requests.append(request.url))
        scored.click("#notice button:has-text('Undo')")
        expect(scored.locator("#rows tr.scored")).to_have_count(20)
        scored.reload()
        expect(scored.locator("#rows tr.scored")).to_have_count(20)
        assert [url for url in requests if "/score?" in url] == []  # neither Undo nor the reload scores again
