"""Where an image is anomalous: its regions in the uploaded image's own pixels, and pictures of them.

All of it comes from the model's map in score units. If the score is the maximum of the map, that is the map itself. If
a scoring rule computes the score, the map of the squared error is scaled so that its maximum is the score. Either way a
place lies above the threshold exactly if the image is an anomaly.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.inference.bundles.manifest import Manifest
from app.inference.decisions.regions import Region, above, find_regions, in_score_units
from app.inference.images.model_input import SIDES, InputSpec
from app.inference.images.placement import Box, Placement, Size, smallest_box, within
from app.inference.images.rendering import outlined, overlaid
from app.inference.serving.batch_scorer import Scored

LONGEST_SIDE: Final = 1024
"""Of pictures of an uploaded image, in pixels; smaller images have their own size."""

PICTURE_PIXELS: Final = LONGEST_SIDE**2
"""Most pixels of such a picture."""

_DECIMALS: Final = 1  # of a pixel, in polygons

_Edges = NDArray[np.float64]


class ImageRegion(NamedTuple):
    """A region in pixels of the uploaded image, upright.

    Attributes:
        box: left, top, width and height: the smallest box of whole pixels that holds the region.
        area: its share of the image, in (0, 1].
        peak: the largest value of the map in it, in score units, above the threshold.
        polygon: the corners (x, y) of its outer boundary, clockwise.
    """

    box: Box
    area: float
    peak: float
    polygon: list[tuple[float, float]]


@dataclass(frozen=True)
class Localization:
    """The map of one image and where it lies in the uploaded image.

    Attributes:
        values: (h, w) map in score units, padding folded back; -∞ where only padding is.
        placement: of the image in the model's input.
        threshold: in use, in score units.
    """

    values: NDArray[np.float64]
    placement: Placement
    threshold: float

    @classmethod
    def of(cls, scored: Scored, manifest: Manifest, threshold: float) -> "Localization":
        """The localization of a scored image."""
        spec = manifest.input
        placement = Placement.of(scored.size or (spec.width, spec.height), spec)
        return cls(placement.fold(_score_values(scored, manifest)), placement, threshold)

    @cached_property
    def _regions(self) -> list[Region]:
        return find_regions(self.values, self.threshold)

    def regions(self) -> list[ImageRegion]:
        """The regions, the highest peak first, at most 32."""
        if not self._regions:
            return []
        xs, ys = self._edges(self.placement.size)
        widths, heights = np.diff(xs), np.diff(ys)
        return [
            ImageRegion(
                box=_box(each, xs, ys),
                area=float(heights[each.top : each.bottom] @ each.cells @ widths[each.left : each.right])
                / math.prod(self.placement.size),
                peak=each.peak,
                polygon=[(round(float(xs[x]), _DECIMALS), round(float(ys[y]), _DECIMALS)) for x, y in each.outline()],
            )
            for each in self._regions
        ]

    @property
    def picture_size(self) -> Size:
        """Width and height of pictures of the image: its own, at most 1024 pixels on the longer side."""
        return within(self.placement.size, LONGEST_SIDE)

    def picture_spec(self, spec: InputSpec) -> InputSpec:
        """What to decode an image file to for a picture, of at least 4 × 4 pixels, by a model with some input."""
        width, height = (max(SIDES[0], side) for side in self.picture_size)
        changes = {
            "mode": "RGB",
            "width": width,
            "height": height,
            "fit": "stretch",
            "reduction": "area",
            "jpeg": "scaled",
        }
        return spec.model_copy(update=changes)

    def mask(self) -> NDArray[np.uint8]:
        """All places above the threshold, holes left out: (height, width) of ``picture_size``, 255 or 0."""
        drawn = self.placement.draw(above(self.values, self.threshold), self.picture_size)
        return drawn.astype(np.uint8) * np.uint8(255)

    def overlay(self, picture: NDArray[np.uint8], typical: float) -> NDArray[np.uint8]:
        """A picture with the map laid over it, and the regions' boxes.

        Args:
            picture: (H, W, 3), the whole uploaded image.
            typical: the median score of normal images, from which on the map is visible.

        Returns:
            (H, W, 3) 8-bit pixels.
        """
        height, width, _ = picture.shape
        finite = np.where(np.isfinite(self.values), self.values, typical)
        values = self.placement.interpolate(finite, (width, height))
        xs, ys = self._edges((width, height))
        return outlined(
            overlaid(picture, _scaled(values, typical, self.threshold)),
            [_box(region, xs, ys) for region in self._regions],
        )

    def _edges(self, size: Size) -> tuple[_Edges, _Edges]:
        """The edges of the map's columns and of its rows in the image at some size."""
        across, down = self.placement.x, self.placement.y
        rows, columns = self.values.shape
        return across.edges(columns) * (size[0] / across.image), down.edges(rows) * (size[1] / down.image)


def _scaled(values: NDArray[np.float64], typical: float, threshold: float) -> NDArray[np.float64]:
    """Values on the scale of the normal images: 0 at the typical score, 1 at the threshold.

    Above, the scale is logarithmic, up to 2 at the image's own peak or at twice the threshold, if that is higher: peaks
    of 10,000 thresholds occur, and the place of a peak would be lost in them.
    """
    # A request can choose a threshold below the typical score; the scale then begins at 0.
    begin = typical if typical < threshold else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.nan_to_num((values - begin) / (threshold - begin))
    top = max(2.0, float(scaled.max()))
    return np.where(scaled > 1, 1 + np.log(np.maximum(scaled, 1)) / math.log(top), scaled)


def _box(region: Region, xs: _Edges, ys: _Edges) -> Box:
    return smallest_box((xs[region.left], xs[region.right]), (ys[region.top], ys[region.bottom]))


def _score_values(scored: Scored, manifest: Manifest) -> NDArray[np.float64]:
    """The map (h, w) in score units; of models of schema version 1, from the reconstruction."""
    if scored.error_maps is None or manifest.error_map is None:
        squared_error = (scored.original - scored.reconstruction).square().mean(0).numpy()
        return in_score_units(squared_error, scored.score, is_maximum=False)
    error_map = scored.error_maps[scored.row, 0].numpy()
    return in_score_units(error_map, scored.score, is_maximum=manifest.error_map.score == "maximum")
