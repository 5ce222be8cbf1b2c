"""Helpers for tests of the page in a real browser, against a running server with trained models."""

import base64
import io
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import FilePayload, Page, expect

from tests.api.conftest import Visit
from tests.api.page.station import Station, running_station
from tests.support import ROOT, Server, running_server

expect.set_options(timeout=60_000)

Point = tuple[float, float]
Digits = dict[int, list[bytes]]

NAMES = {(0, 0): '=1+"2", zero.png', (1, 0): "größe 1.png"}
"""Names that need escaping in CSV files, by digit and number."""

FIVE: Sequence[Sequence[Point]] = (
    ((0.7, 0.15), (0.36, 0.17)),
    ((0.36, 0.17), (0.32, 0.45), (0.5, 0.4), (0.68, 0.55), (0.62, 0.78), (0.45, 0.87), (0.27, 0.82)),
)


def file(name: str, data: bytes, media_type: str = "image/png") -> FilePayload:
    return {"name": name, "mimeType": media_type, "buffer": data}


def to_pixels(page: Page, point: Point) -> Point:
    expect(page.locator("#pad")).to_be_visible()  # once the model is known
    box = page.locator("#pad").bounding_box()
    assert box is not None
    return box["x"] + point[0] * box["width"], box["y"] + point[1] * box["height"]


def draw_with_mouse(page: Page, stroke: Sequence[Point]) -> None:
    first, *others = (to_pixels(page, point) for point in stroke)
    page.mouse.move(*first)
    page.mouse.down()
    for x, y in others:
        page.mouse.move(x, y, steps=5)
    page.mouse.up()


def draw_with_finger(page: Page, stroke: Sequence[Point]) -> None:
    devtools = page.context.new_cdp_session(page)
    kinds = ["touchStart", *["touchMove"] * (len(stroke) - 1)]
    for kind, (x, y) in zip(kinds, (to_pixels(page, point) for point in stroke), strict=True):
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def names(page: Page) -> list[str]:
    return page.locator("#rows .name button").all_inner_texts()


def verdicts(page: Page) -> list[str]:
    return page.locator("#rows .verdict-cell").all_inner_texts()


def reasons(page: Page) -> list[str]:
    return page.locator("#rows .name p").all_inner_texts()


def verdict_of(page: Page) -> dict[str, str]:
    """The verdicts by the names of the images: the rows are ordered by urgency."""
    return dict(zip(names(page), verdicts(page), strict=True))


def expect_picture(page: Page, selector: str, png_uri: str) -> None:
    """Waits until an <img> shows exactly the pixels of a PNG file."""
    with Image.open(io.BytesIO(base64.b64decode(png_uri.partition(",")[2]))) as image:
        expected = np.asarray(image.convert("RGBA"))
    script = """async image => {
        await image.decode().catch(() => {});
        const canvas = new OffscreenCanvas(Math.max(image.naturalWidth, 1), Math.max(image.naturalHeight, 1));
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
    }"""
    deadline = time.monotonic() + 15
    while page.locator(selector).evaluate(script) != expected.ravel().tolist():
        assert time.monotonic() < deadline, f"{selector} does not show the picture of the answer"
        page.wait_for_timeout(50)


def wait_until_scored(page: Page, count: int) -> None:
    expect(page.locator("#rows tr")).to_have_count(count)
    expect(page.locator("#rows tr.waiting")).to_have_count(0)


def score_files(page: Page, *files: FilePayload) -> None:
    before = page.locator("#rows tr").count()
    page.set_input_files("#files", list(files))
    wait_until_scored(page, before + len(files))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "log"
    with running_server(ROOT / "model_store", log, measure_coverage=False) as running:
        yield running


@pytest.fixture(scope="session")
def _station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    with running_station(tmp_path_factory.mktemp("station")) as running:
        yield running


@pytest.fixture
def station(_station: Station) -> Station:
    """A station without labels."""
    _station.forget_labels()
    return _station


@pytest.fixture
def scored(visit: Visit, digit_files: Digits) -> Page:
    """Twenty scored images of all digits; two names need escaping in CSV files."""
    page = visit(accept_downloads=True)
    score_files(
        page,
        *(
            file(NAMES.get((digit, number), f"{digit}-{number}.png"), data)
            for digit, all_files in digit_files.items()
            for number, data in enumerate(all_files[:2])
        ),
    )
    return page


def layout_shift(page: Page) -> float:
    """The cumulative layout shift (https://web.dev/articles/cls) since the page was loaded."""
    shifted: float = page.evaluate(
        """() => new Promise(resolve => new PerformanceObserver(list => resolve(
            list.getEntries().reduce((sum, entry) => sum + entry.value, 0)
        )).observe({ type: "layout-shift", buffered: true }) || setTimeout(() => resolve(0), 300))"""
    )
    return shifted


def serious_violations(page: Page) -> list[tuple[str, str, list[str]]]:
    """The serious and critical violations that axe reports: rule, impact and elements."""
    found = Axe().run(page).response
    assert len(found["passes"]) > 15
    return [
        (each["id"], each["impact"], [node["html"] for node in each["nodes"]])
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]
