"""Figures from masks of defects, by hand and by other libraries."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from app.inference.bundles.bundle import BatchScores
from app.inference.bundles.manifest import LocalizationFigures
from app.inference.decisions.regions import Cells
from training.evaluation.masks import MOST_FALSE_POSITIVES, MaskEvaluation

Maps = NDArray[np.float32]


def outputs(maps: Maps) -> BatchScores:
    """Of a model whose score is the maximum of its map."""
    blank, scores = torch.zeros(len(maps), 1, 8, 8), maps.reshape(len(maps), -1).max(axis=1).tolist()
    return BatchScores(blank, scores, scores, torch.from_numpy(maps)[:, None])


def figures(maps: Maps, masks: list[Cells | None], threshold: float = 0.5) -> LocalizationFigures | None:
    evaluation = MaskEvaluation(masks, threshold, score_is_maximum=True)
    half = len(maps) // 2  # in two batches
    evaluation.add(outputs(maps[:half]))
    evaluation.add(outputs(maps[half:]))
    return evaluation.figures()


@pytest.fixture
def noisy() -> tuple[Maps, list[Cells]]:
    """Maps that are somewhat higher where the defects are."""
    generator = np.random.default_rng(0)
    masks = np.zeros((6, 20, 20), np.bool_)
    masks[0, 2:5, 2:5] = masks[0, 10:18, 10:18] = masks[1, 4, 4] = masks[2, 6:9, 1:15] = True
    maps = generator.gamma(2, 0.1, masks.shape) + 0.3 * masks * generator.random(masks.shape)
    return maps.astype(np.float32), list(masks)


def test_pixel_auroc_is_that_of_scikit_learn(noisy: tuple[Maps, list[Cells]]) -> None:
    maps, masks = noisy
    found = figures(maps, [*masks])
    assert found is not None
    assert found.pixel_auroc == pytest.approx(roc_auc_score(np.ravel(masks), maps.ravel()), abs=1e-3)


def aupro_by_definition(maps: Maps, masks: list[Cells]) -> float:
    """Threshold by threshold. Each mask is cut into its defects by hand."""
    defects = [(0, np.s_[2:5, 2:5]), (0, np.s_[10:18, 10:18]), (1, np.s_[4:5, 4:5]), (2, np.s_[6:9, 1:15])]
    normal = maps[~np.array(masks)]
    rates, overlaps = [0.0], [0.0]
    for threshold in sorted(maps.ravel().tolist(), reverse=True):
        rates.append(float((normal >= threshold).mean()))
        overlaps.append(float(np.mean([(maps[image][place] >= threshold).mean() for image, place in defects])))
    limit = MOST_FALSE_POSITIVES
    xs = np.linspace(0, limit, 20001)
    return float(np.trapezoid(np.interp(xs, rates, overlaps), xs) / limit)


def test_aupro_is_the_area_under_the_per_region_overlap(noisy: tuple[Maps, list[Cells]]) -> None:
    maps, masks = noisy
    found = figures(maps, [*masks])
    assert found is not None
    assert found.aupro == pytest.approx(aupro_by_definition(maps, masks), abs=2e-3)


def test_perfect_map_has_perfect_figures(noisy: tuple[Maps, list[Cells]]) -> None:
    _, masks = noisy
    found = figures(np.array(masks, np.float32), [*masks])
    assert found == LocalizationFigures(
        images=3, pixel_auroc=1, aupro=1, defects=4, defects_found=1, regions=4, regions_on_defects=1
    )


def test_hit_rates_count_defects_and_regions() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[0:5, 0:5] = mask[30:40, 30:40] = True
    maps = np.zeros((2, 8, 8), np.float32)  # cells of 5 × 5 pixels
    maps[0, 0, 0] = maps[0, 3, 3] = 1  # on a defect, and beside all
    maps[1, 5, 5] = 1  # on a normal image
    found = figures(maps, [mask, np.zeros_like(mask)])
    assert found is not None
    assert (found.images, found.defects, found.regions) == (1, 2, 3)
    assert found.defects_found == 0.5
    assert found.regions_on_defects == pytest.approx(1 / 3)
    none = figures(maps, [mask, np.zeros_like(mask)], threshold=1)
    assert none is not None
    assert (none.defects_found, none.regions, none.regions_on_defects) == (0, 0, None)


def test_images_without_a_mask_are_left_out(noisy: tuple[Maps, list[Cells]]) -> None:
    maps, masks = noisy
    with_unknown = np.concatenate([maps[:3], maps[:1] * 9, maps[3:]])
    assert figures(with_unknown, [*masks[:3], None, *masks[3:]]) == figures(maps, [*masks])
    assert figures(maps, [None] * 6) is None
