"""The region of interest on the picture: what does not count is dimmed, in the image's own pixels."""

import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from app.inference.images.placement import Placement
from tests.api.conftest import Visit
from tests.api.page.conftest import file, score_files, serious_violations, wait_until_scored
from tests.api.page.station import OTHER_FITS, Station, enter, png_of, surface
from tests.support import encode

pytestmark = pytest.mark.no_cover  # the server is measured, not its clients

SIZES = {"wide.png": (120, 50), "high.png": (44, 130), "square.png": (96, 96), "turned.jpg": (60, 100)}
"""As a viewer shows the images: the last one lies on its side in the file."""


def veil(page: Page, width: int) -> NDArray[np.bool_]:
    """Which pixels of the shown image are dimmed: (height, width)."""
    canvas = page.locator("#veil")
    expect(canvas).to_have_js_property("width", width)
    rows = canvas.evaluate(
        """canvas => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            const opacity = Array.from({ length: width * height }, (_, pixel) => data[4 * pixel + 3]);
            return Array.from({ length: height }, (_, y) => opacity.slice(y * width, (y + 1) * width));
        }"""
    )
    return np.asarray(rows) > 84  # half of the veil's opacity


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    return encode(surface(5, (100, 60)), "JPEG", exif=exif)


def test_what_does_not_count_is_dimmed_as_the_service_places_it(visit: Visit, station: Station) -> None:
    page = visit(of=station.server)
    enter(page)
    images = {name: turned() if name == "turned.jpg" else png_of(3, size) for name, size in SIZES.items()}
    score_files(page, *(file(name, data) for name, data in images.items()))
    for model in ("parts", *OTHER_FITS):
        page.goto(f"http://127.0.0.1:{station.server.port}/?model={model}")
        wait_until_scored(page, len(images))
        manifest = station.store.load(model, station.store.current(model)).manifest
        assert manifest.region_of_interest is not None
        with Image.open(io.BytesIO(base64.b64decode(manifest.region_of_interest.mask))) as mask:
            counts = np.asarray(mask) > 0
        for name, size in SIZES.items():
            page.click(f"#rows button:has-text('{name}')")
            dimmed = veil(page, size[0])
            expected = ~Placement.of(size, manifest.input).draw(counts, size)
            assert dimmed.shape == expected.shape
            assert 0.1 < expected.mean() < 0.95
            assert (dimmed != expected).mean() < 0.02, (model, name)  # rounding along the border
        expect(page.locator("#veil-hint")).to_be_visible()
    assert serious_violations(page) == []
    page.keyboard.press("m")
    expect(page.locator("#veil")).to_be_hidden()
