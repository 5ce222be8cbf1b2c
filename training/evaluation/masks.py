"""Evaluation with masks of the true defects: how well the model's map shows where they are.

- Pixel AUROC: of all pixels of the test images, those of defects against the others.
- AUPRO: the per-region overlap is the mean, over all true defects, of the share of a defect's pixels above a threshold.
  Its area over the false-positive rate of pixels from 0 to 0.3, divided by 0.3, weighs small and large defects alike
  (Bergmann et al., "The MVTec Anomaly Detection Dataset", International Journal of Computer Vision, 2021).
- Hit rates at the threshold in use: of the true defects, those that a region touches; of the regions, those that touch
  a true defect.

Maps are compared in score units at the model's input size, bilinear between their cells for the first two. Values are
counted in bins of 0.4 % of a value, so that any number of images takes the same memory.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from app.inference.bundles.bundle import BatchScores
from app.inference.bundles.manifest import LocalizationFigures
from app.inference.decisions.regions import Cells, find_regions, in_score_units

MOST_FALSE_POSITIVES: Final = 0.3
_SHIFT: Final = 15  # bits that are left out of a float32: of 23 bits of its fraction, 8 count
_BINS: Final = 2 ** (31 - _SHIFT)
_DEFECT: Final = 0.5


class MaskEvaluation:
    """Compares maps with masks, batch by batch.

    Args:
        masks: one per test image, (H, W): true for pixels of a defect; None: the image is left out, as are images
            beyond the last mask. Those of normal images are all false.
        threshold: in use, in score units.
        score_is_maximum: whether the score is the maximum of the map.
    """

    def __init__(self, masks: Sequence[Cells | None], threshold: float, *, score_is_maximum: bool) -> None:
        self._masks = iter(masks)
        self._threshold = threshold
        self._score_is_maximum = score_is_maximum
        self._images = self._defects = self._found = self._regions = self._right = 0
        self._normal, self._defective, self._overlap = (np.zeros(_BINS) for _ in range(3))

    def add(self, outputs: BatchScores) -> None:
        """Adds the next test images."""
        assert outputs.error_map is not None  # noqa: S101  models of training have a map
        for error_map, score in zip(outputs.error_map, outputs.score, strict=True):
            mask = next(self._masks, None)
            if mask is not None:
                values = in_score_units(error_map[0].numpy(), score, is_maximum=self._score_is_maximum)
                self._compare(values, mask)

    def _compare(self, values: NDArray[np.float64], mask: Cells) -> None:
        self._images += bool(mask.any())
        bins = _bins(_enlarged(values, mask.shape))
        self._normal += np.bincount(bins[~mask], minlength=_BINS)
        self._defective += np.bincount(bins[mask], minlength=_BINS)
        rows, columns = (_edges(size, cells) for size, cells in zip(mask.shape, values.shape, strict=True))
        above = np.zeros(mask.shape, np.bool_)
        for region in find_regions(values, self._threshold, most=None):
            cells = np.repeat(region.cells, np.diff(rows[region.top : region.bottom + 1]), axis=0)
            cells = np.repeat(cells, np.diff(columns[region.left : region.right + 1]), axis=1)
            place = np.s_[rows[region.top] : rows[region.bottom], columns[region.left] : columns[region.right]]
            above[place] |= cells
            self._regions += 1
            self._right += bool((mask[place] & cells).any())
        for defect in find_regions(mask.astype(np.float64), _DEFECT, most=None):
            place = np.s_[defect.top : defect.bottom, defect.left : defect.right]
            self._overlap += np.bincount(bins[place][defect.cells], minlength=_BINS) / defect.cells.sum()
            self._defects += 1
            self._found += bool((above[place] & defect.cells).any())

    def figures(self) -> LocalizationFigures | None:
        """The figures; None without defects that have a mask."""
        if not self._defects:
            return None
        normal, defective, overlap = (
            np.concatenate([[0.0], np.cumsum(counts[::-1])])
            for counts in (self._normal, self._defective, self._overlap)
        )
        has_normal = normal[-1] > 0
        return LocalizationFigures(
            images=self._images,
            pixel_auroc=_area(normal / normal[-1], defective / defective[-1], 1) if has_normal else None,
            aupro=_area(normal / normal[-1], overlap / self._defects, MOST_FALSE_POSITIVES) if has_normal else None,
            defects=self._defects,
            defects_found=self._found / self._defects,
            regions=self._regions,
            regions_on_defects=self._right / self._regions if self._regions else None,
        )


def _edges(size: int, cells: int) -> NDArray[np.intp]:
    """Where the cells of a map begin and end, in pixels of the input."""
    edges: NDArray[np.intp] = np.linspace(0, size, cells + 1).round().astype(np.intp)
    return edges


def _enlarged(values: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.float64]:
    enlarged: NDArray[np.float64] = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size, mode="bilinear"
    )[0, 0].numpy()
    return enlarged


def _bins(values: NDArray[np.float64]) -> NDArray[np.int32]:
    """The bit patterns of positive floats are in the order of the floats; their first bits are bins."""
    patterns: NDArray[np.int32] = np.maximum(values, 0).astype(np.float32).view(np.int32)
    return patterns >> np.int32(_SHIFT)


def _area(rates: NDArray[np.float64], shares: NDArray[np.float64], up_to: float) -> float:
    """The mean height of a curve over rates from 0 to a limit, in [0, 1]."""
    within = rates <= up_to
    xs = np.append(rates[within], up_to)
    ys = np.append(shares[within], np.interp(up_to, rates, shares))
    return float(min(np.trapezoid(ys, xs) / up_to, 1.0))
