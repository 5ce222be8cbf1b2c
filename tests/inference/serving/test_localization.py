"""Regions of scored images, in pixels of the uploaded image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from app.inference.bundles.manifest import ErrorMap, Manifest
from app.inference.images.model_input import Fit
from app.inference.serving.batch_scorer import Scored
from app.inference.serving.localization import LONGEST_SIDE, Localization
from tests.support import SPEC, make_bundle

FITS: list[Fit] = ["stretch", "pad", "crop"]
MANIFEST, _ = make_bundle("brightest", cells=(8, 8))
MAPS = arrays(np.float32, (8, 8), elements=st.floats(0, 4, width=32))
SIZES = st.tuples(st.integers(1, 60), st.integers(1, 60))


def manifest_of(fit: Fit = "stretch", *, score_is_maximum: bool = True) -> Manifest:
    record = ErrorMap(height=8, width=8, score="maximum" if score_is_maximum else "rule")
    return MANIFEST.model_copy(update={"input": SPEC.model_copy(update={"fit": fit}), "error_map": record})


def scored(values: NDArray[np.float32], score: float, size: tuple[int, int] | None = None) -> Scored:
    blank = torch.zeros(1, *SPEC.shape)
    maps = torch.from_numpy(np.array(values))[None, None]
    return Scored(blank, blank, 0, None, 0, score, 0.5, (), 0, 0, maps, size)


@settings(max_examples=100)
@given(MAPS, st.floats(0, 4), st.sampled_from(FITS), SIZES)
def test_image_is_an_anomaly_exactly_if_there_is_a_region(
    values: NDArray[np.float32], threshold: float, fit: Fit, size: tuple[int, int]
) -> None:
    score = float(values.max())
    regions = Localization.of(scored(values, score, size), manifest_of(fit), threshold).regions()
    assert bool(regions) is (score > threshold)
    for region in regions:
        left, top, width, height = region.box
        assert 0 <= left < left + width <= size[0]
        assert 0 <= top < top + height <= size[1]
        assert 0 < region.area <= width * height / (size[0] * size[1]) * (1 + 1e-9)
        assert threshold < region.peak <= score
        assert all(left - 0.1 <= x <= left + width + 0.1 and top - 0.1 <= y <= top + height + 0.1
                   for x, y in region.polygon)  # fmt: skip
    assert not regions or regions[0].peak == score


@settings(max_examples=100)
@given(MAPS, st.floats(0, 4, width=32), st.floats(0, 4))
def test_map_of_a_scoring_rule_has_the_score_as_its_maximum(
    values: NDArray[np.float32], score: float, threshold: float
) -> None:
    regions = Localization.of(scored(values, score), manifest_of(score_is_maximum=False), threshold).regions()
    assert bool(regions) is (score > threshold)
    assert not regions or regions[0].peak == score


def test_region_has_box_area_peak_and_polygon_in_pixels_of_the_image() -> None:
    values = np.zeros((8, 8), np.float32)
    values[2:4, 1:5], values[4, 1] = 2, 3
    (region,) = Localization.of(scored(values, 3, (80, 160)), manifest_of(), 1).regions()
    assert region.box == (10, 40, 40, 60)
    assert region.area == pytest.approx(9 / 64)
    assert region.peak == 3
    assert region.polygon == [(10, 40), (50, 40), (50, 80), (20, 80), (20, 100), (10, 100)]


def test_mask_shows_the_regions_with_their_holes() -> None:
    values = np.ones((8, 8), np.float32)
    values[3:5, 3:5] = 0
    localization = Localization.of(scored(values, 1, (16, 24)), manifest_of(), 0.5)
    mask = localization.mask()
    assert mask.shape == (24, 16)
    assert mask.dtype == np.uint8
    assert (mask[9:15, 6:10] == 0).all()
    assert (mask == 0).sum() == 6 * 4
    (region,) = localization.regions()
    assert region.area == pytest.approx((mask > 0).mean())


def test_mask_and_overlay_of_a_large_image_are_bounded() -> None:
    localization = Localization.of(scored(np.ones((8, 8), np.float32), 1, (4000, 3000)), manifest_of(), 0.5)
    assert localization.picture_size == (LONGEST_SIDE, 768)
    assert localization.mask().shape == (768, LONGEST_SIDE)


def test_overlay_is_invisible_at_a_typical_score_and_red_at_the_threshold() -> None:
    picture = np.full((80, 80, 3), 100, np.uint8)
    values = np.full((8, 8), 0.2, np.float32)
    values[:, 4:] = 1.0
    overlay = Localization.of(scored(values, 1, (80, 80)), manifest_of(), 1).overlay(picture, 0.2)
    assert (overlay[:, :30] == 100).all()
    red, green, blue = overlay[40, 70].astype(int)
    assert red > 130 > green
    assert green < blue < red
    boxed = Localization.of(scored(values, 1, (80, 80)), manifest_of(), 0.9).overlay(picture, 0.2)
    assert boxed[0, 40].tolist() == boxed[79, 79].tolist() == [0, 229, 255]
    assert boxed[0, 39].tolist() != [0, 229, 255]


@pytest.mark.parametrize(("threshold", "typical"), [(0, 0.1), (0.1, 0.1), (1, 0.1), (1, 5)])
def test_overlay_has_a_scale_for_every_threshold(threshold: float, typical: float) -> None:
    values = np.zeros((8, 8), np.float32)
    values[4, 4] = 0.5
    picture = np.zeros((20, 10, 3), np.uint8)
    overlay = Localization.of(scored(values, 0.5, (10, 20)), manifest_of("pad"), threshold).overlay(picture, typical)
    assert overlay.shape == picture.shape
