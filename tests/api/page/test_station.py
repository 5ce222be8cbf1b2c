"""The page as an inspection station: own samples, camera, picture, decisions, mask, session."""

import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.api.conftest import PHONE, Visit
from tests.api.page.conftest import file, layout_shift, names, score_files, serious_violations, wait_until_scored
from tests.api.page.station import Station, enter, png_of, wait_for_labels
from tests.support import ROOT, encode, gradient

pytestmark = pytest.mark.no_cover  # the server is measured, not its clients

WIDE = encode(gradient(120, 60))


def decide(page: Page, key: str, count: int) -> None:
    page.keyboard.press(key)
    expect(page.locator(".mark:not(:empty)")).to_have_count(count)


def test_model_of_parts_has_files_camera_and_its_own_samples(visit: Visit, station: Station) -> None:
    page = visit(of=station.server, permissions=["camera"])
    enter(page)
    expect(page.locator("#pad")).to_be_hidden()
    expect(page.locator("main")).not_to_contain_text("digit")
    assert page.locator("#samples button").all_inner_texts() == ["normal"] * 3 + ["deep scratch"]
    page.click("#samples button >> nth=3")
    wait_until_scored(page, 1)
    expect(page.locator("#verdict-title")).to_have_text("Anomaly")
    expect(page.locator("#original")).to_have_js_property("naturalWidth", 32)
    assert serious_violations(page) == []

    page.click("#camera-open")
    expect(page.locator("#camera-device option")).not_to_have_count(0)
    expect(page.locator("#video")).not_to_have_js_property("videoWidth", 0)
    page.locator("#stage").focus()
    page.keyboard.press("Space")
    wait_until_scored(page, 2)
    page.select_option("#camera-interval", "1")
    expect(page.locator("#rows tr.scored >> nth=3")).to_be_attached()
    page.select_option("#camera-interval", "0")
    assert serious_violations(page) == []
    page.click("#camera-close")
    expect(page.locator("#drop-zone")).to_be_visible()
    assert sum(name.startswith("camera ") for name in names(page)) >= 3

    page.goto(page.url.partition("?")[0] + "docs")  # with the key of this tab
    expect(page.locator("main#operations")).to_contain_text("/score")
    expect(page.locator("#key-needed")).to_be_hidden()


def test_camera_that_is_not_allowed_is_explained(visit: Visit, station: Station) -> None:
    page = visit(of=station.server)
    enter(page)
    page.click("#camera-open")
    expect(page.locator("#notice")).to_contain_text("does not allow this page to use the camera")
    expect(page.locator("#drop-zone")).to_be_visible()


def test_regions_of_the_service_lie_on_the_picture(visit: Visit, station: Station) -> None:
    wide = png_of(1, (120, 60), spot=True)
    page = visit(of=station.server)
    enter(page)
    score_files(page, file("wide.png", wide))
    expect(page.locator("#original")).to_have_js_property("naturalWidth", 120)
    (region, *_) = station.server.client.post(
        "/score?include=", content=wide, headers={"Content-Type": "image/png", "X-API-Key": "key"}
    ).json()["results"][0]["regions"]
    box = page.locator("#regions .box").first
    assert [float(box.get_attribute(name) or "nan") for name in ("x", "y", "width", "height")] == region["box"]
    x, y, width, height = region["box"]
    assert (x <= 15, y <= 24, x + width >= 39, y + height >= 36) == (True,) * 4  # the spot is inside
    picture, drawn = page.locator("#plane").bounding_box(), box.bounding_box()
    assert picture is not None
    assert drawn is not None
    assert picture["width"] == pytest.approx(2 * picture["height"], rel=0.01)
    scale = picture["width"] / 120
    assert drawn["x"] + drawn["width"] / 2 == pytest.approx(picture["x"] + scale * (x + width / 2), abs=2)
    assert drawn["width"] == pytest.approx(scale * width, abs=6)
    expect(page.locator("#warnings")).to_contain_text(re.compile(r"covers? \d+(\.\d+)?% of the image"))
    page.keyboard.press("m")
    expect(page.locator("#regions")).to_be_hidden()
    expect(page.locator("#map")).to_be_hidden()
    page.keyboard.press("m")
    expect(page.locator("#map")).to_be_visible()
    page.uncheck("#boxes")
    expect(page.locator("#regions")).to_be_hidden()
    page.check("#boxes")
    page.locator("#opacity").press("Home")
    assert page.locator("#map").evaluate("map => getComputedStyle(map).opacity") == "0"


def test_boxes_follow_the_slider_as_far_as_they_are_known(visit: Visit, station: Station) -> None:
    page = visit(of=station.server)
    enter(page)
    score_files(page, file("spot.png", png_of(1, spot=True)), file("plain.png", png_of(2)))
    page.click("text=plain.png")
    expect(page.locator("#warnings")).to_contain_text("No region is above the threshold.")
    page.locator("#sensitivity").press("Home")
    expect(page.locator("#warnings")).to_contain_text("No region is above the calibrated threshold.")
    page.click("text=spot.png")
    expect(page.locator("#warnings")).to_contain_text("Boxes are those of the calibrated threshold.")


def test_picture_zooms_and_the_arrow_keys_go_through_the_list(visit: Visit, station: Station) -> None:
    page = visit(of=station.server)
    enter(page)
    score_files(page, file("b.png", WIDE), file("a.png", encode(gradient(60, 120))), file("notes.txt", b"no image"))
    page.click("text=b.png")
    expect(page.locator("#original")).to_have_js_property("naturalWidth", 120)
    picture = page.locator("#plane").bounding_box()
    assert picture is not None

    def width() -> float:
        box = page.locator("#plane").bounding_box()
        assert box is not None
        return box["width"] / picture["width"]

    page.hover("#stage")
    page.mouse.wheel(0, -300)
    expect(page.locator("#stage.zoomed")).to_have_count(1)
    assert width() > 2
    page.locator("#stage").dblclick()
    expect(page.locator("#stage.zoomed")).to_have_count(0)
    assert width() == pytest.approx(1, rel=0.01)
    page.keyboard.press("+")
    assert width() > 1.5
    page.keyboard.press("0")

    shown = []
    for _ in range(5):  # more often than there are rows: the last one stays
        page.keyboard.press("ArrowDown")
        shown.append(page.locator("#result-heading").inner_text())
    assert shown[-1] == shown[-2] == names(page)[-1]
    page.keyboard.press("ArrowUp")
    expect(page.locator("#result-heading")).to_have_text(names(page)[-2])
    expect(page.locator("#rows button:focus")).to_have_text(names(page)[-2])


def test_decisions_are_kept_with_operator_comment_and_image(visit: Visit, station: Station) -> None:
    page = visit(of=station.server, accept_downloads=True)
    enter(page)
    score_files(page, *(file(f"{width}.png", encode(gradient(width, 9))) for width in (10, 11, 12)))
    first, second, _ = names(page)
    page.fill("#comment", "scratch, left")
    page.keyboard.press("Enter")
    page.keyboard.press("j")
    page.fill("#operator-input", "Kim")
    page.keyboard.press("Enter")
    expect(page.locator(".mark:not(:empty)")).to_have_text(["✓ right"])
    expect(page.locator("#result-heading")).to_have_text(second)  # goes on to the next image
    page.context.set_offline(True)
    decide(page, "f", 2)  # not asked again for the name
    expect(page.locator("#notice")).to_contain_text("1 decision is not stored yet")
    page.context.set_offline(False)
    expect(page.locator("#notice")).to_be_hidden()
    kept = [orjson.loads(line) for line in station.labels.read_bytes().splitlines()]
    assert [(label["operator"], label["filename"], label["comment"]) for label in kept] == [
        ("Kim", first, "scratch, left"), ("Kim", second, None),
    ]  # fmt: skip
    said = ["anomaly" if label["score"] > label["threshold"] else "normal" for label in kept]
    assert [label["verdict"] == each for label, each in zip(kept, said, strict=True)] == [True, False]
    assert {label["image"] for label in kept} == {path.name for path in station.images.iterdir()}

    page.reload()
    wait_until_scored(page, 3)
    assert sorted(page.locator(".mark:not(:empty)").all_inner_texts()) == ["✓ right", "✗ wrong"]
    page.click("#open-labels")
    expect(page.locator("#labels tbody tr")).to_have_count(2)
    expect(page.locator("#labels")).to_contain_text("the verdict was right for 50%")
    expect(page.locator("#labels")).to_contain_text("scratch, left")
    assert serious_violations(page) == []
    with page.expect_download() as downloading:
        page.click("#labels button:has-text('CSV')")
    rows = list(csv.DictReader(io.StringIO(Path(downloading.value.path()).read_text("utf-8"), newline="")))
    assert [(row["verdict"], row["said"], row["operator"]) for row in rows] == [
        (label["verdict"], each, "Kim") for label, each in zip(kept, said, strict=True)
    ]
    with page.expect_download() as downloading:
        page.click("#labels button:has-text('JSON')")
    lines = Path(downloading.value.path()).read_text("utf-8").splitlines()
    assert [orjson.loads(line) for line in lines] == kept


def test_retraining_command_names_the_model_and_counts_its_labels(visit: Visit, station: Station) -> None:
    page = visit(of=station.server, permissions=["clipboard-read", "clipboard-write"])
    enter(page)
    score_files(page, file("normal.png", png_of(1)), file("spot.png", png_of(2, spot=True)))
    page.evaluate("localStorage.setItem('anomaly-operator', 'Kim')")
    decide(page, "j", 1)
    decide(page, "j", 2)
    wait_for_labels(page, station, 2)
    page.click("#open-retrain")
    dialog = page.locator("#retraining")
    expect(dialog).to_contain_text("1 labelled normal and 1 labelled anomaly for parts.")
    dialog.get_by_role("button", name="Copy").click()
    expect(dialog.locator(".command [role=status]")).to_have_text("Copied.")
    command = page.evaluate("navigator.clipboard.readText()")
    assert command == (
        "python -m training retrain parts --data …/parts "
        '--feedback "$ANOMALY_FEEDBACK_PATH" --images "$ANOMALY_FEEDBACK_IMAGES"'
    )
    assert dialog.locator("code").inner_text().strip() == command
    given = {word for word in command.split() if word.startswith("--")}
    explain = [sys.executable, *command.split()[1:4], "--help"]
    assert given <= set(subprocess.run(explain, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    assert serious_violations(page) == []
    page.keyboard.press("Escape")
    page.goto(f"http://127.0.0.1:{station.server.port}/?model=pad")
    expect(page.locator("#open-retrain")).to_be_enabled()
    page.click("#open-retrain")
    expect(dialog).to_contain_text("0 labelled normal and 0 labelled anomalies for pad.")


def test_mask_is_painted_and_downloaded_at_the_size_of_the_picture(visit: Visit, station: Station) -> None:
    page = visit(of=station.server, accept_downloads=True)
    enter(page)
    score_files(page, file("wide.png", WIDE))
    expect(page.locator("#original")).to_have_js_property("naturalWidth", 120)
    page.click("#draw-mask")
    assert serious_violations(page) == []
    box = page.locator("#mask canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    with page.expect_download() as downloading:
        page.click("#mask .primary")
    assert downloading.value.suggested_filename == "parts-mask.png"
    with Image.open(downloading.value.path()) as image:
        mask = image.convert("L")
    assert mask.size == (120, 60)
    assert {value for _, value in mask.getcolors() or []} == {0, 255}
    assert [mask.getpixel(place) for place in ((60, 30), (30, 30), (89, 30))] == [255] * 3
    assert [mask.getpixel(place) for place in ((5, 30), (60, 10), (60, 50), (115, 30))] == [0] * 4


def test_phone_shows_the_verdict_first(visit: Visit, station: Station) -> None:
    page = visit(of=station.server, **PHONE)
    enter(page)
    assert layout_shift(page) < 0.02
    score_files(page, file("a.png", WIDE))
    order = ["#verdict", "#stage", "#choose", "#rows", "#histogram"]
    tops = [page.locator(each).evaluate("each => each.getBoundingClientRect().top") for each in order]
    assert tops == sorted(tops)
    expect(page.locator("#verdict-title")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_two_thousand_images_hold_few_thumbnails(visit: Visit, station: Station) -> None:
    page = visit(of=station.server)
    enter(page)
    page.route("**/score?*", lambda route: route.abort())  # rows are all that is measured
    script = """([data, count]) => {
        const blob = new Blob([Uint8Array.from(data)], { type: "image/png" });
        const transfer = new DataTransfer();
        for (let number = 0; number < count; number++) transfer.items.add(new File([blob], `${number}.png`));
        document.querySelector("#files").files = transfer.files;
        document.querySelector("#files").dispatchEvent(new Event("change"));
    }"""
    page.evaluate(script, [list(encode(gradient(8, 8))), 2000])
    expect(page.locator("#rows tr")).to_have_count(2000)
    expect(page.locator("#rows img[src]")).not_to_have_count(0)
    assert page.locator("#rows img[src]").count() < 100
    page.locator("#rows tr").last.scroll_into_view_if_needed()
    expect(page.locator("#rows tr").last.locator("img[src]")).to_have_count(1)
    assert page.locator("#rows img[src]").count() < 100
