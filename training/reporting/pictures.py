"""Grids of images, and single images with their reconstruction and error map."""

from collections.abc import Mapping, Sequence
from typing import Final, Self

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from PIL import Image

from app.inference.bundles.bundle import BatchScores
from app.inference.decisions.regions import in_score_units
from app.inference.images.model_input import InputSpec
from app.inference.images.placement import Placement
from app.inference.images.rendering import error_map, score_map, to_image, to_pixels
from app.inference.serving.localization import Localization
from training.data.folders import NORMAL
from training.evaluation.scores import outputs
from training.reporting.data import ReportData
from training.suspects import Suspect

mpl.use("Agg")

_SAMPLES: Final = 16
_WORST: Final = 8
_GALLERY_COLUMNS: Final = 10
_GALLERY_PER_KIND: Final = 2
_GALLERY_KINDS: Final = 20
_SUSPECT_COLUMNS: Final = 5
_LABEL_LETTERS: Final = 22
_LOCALIZED_COLUMNS: Final = 6
_TRUE_OUTLINE: Final = (60, 255, 60)
_PREFERRED_KIND: Final = "7"  # the anomaly that the tutorial shows

# A grid of images: width of the chart, and heights of gaps and labels in image widths.
_GRID_INCHES: Final = 9
_TITLE_INCHES: Final = 0.4
_GAP: Final = 0.06
_LABEL: Final = 0.2
_CELL_PIXELS: Final = 256


class _Cell:
    """An image with its label; reduced, because it is shown small and there are many."""

    def __init__(self, image: Image.Image, label: str = "") -> None:
        self.image = image.convert("RGB")
        self.image.thumbnail((_CELL_PIXELS, _CELL_PIXELS))
        self.label = label

    @classmethod
    def of(cls, image: torch.Tensor, label: str = "") -> Self:
        """From (C, H, W) in [0, 1]."""
        return cls(to_image(image), label)


def _show(axes: mpl.axes.Axes, image: torch.Tensor, title: str = "") -> None:
    axes.imshow(to_image(image).convert("RGB"), interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.axis("off")


def _grid(title: str, cells: Mapping[tuple[int, int], _Cell], columns: int) -> Figure:
    """Images of one size in rows and columns, with labels above them.

    They share one ``Axes`` that fills the figure below the title: with one for each image, or a layout that measures
    all labels, the layout would take much longer than the drawing.

    Args:
        title: of the chart.
        cells: the images, by (row, column).
        columns: number of columns, including empty ones.
    """
    height = max(cell.image.height / cell.image.width for cell in cells.values())
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    bottom = 0.0
    for row in range(max(row for row, _ in cells) + 1):
        labelled = any((row, column) in cells and cells[row, column].label for column in range(columns))
        top = bottom - (_LABEL if labelled else _GAP)
        bottom = top - height
        for column in range(columns):
            if cell := cells.get((row, column)):
                axes.imshow(cell.image, interpolation="nearest", extent=(column, column + 1 - _GAP, bottom, top))
                axes.text(column, top + _GAP / 2, cell.label, fontsize=7)
    axes.set(xlim=(-_GAP, columns), ylim=(bottom - _GAP, 0))
    grid_inches = _GRID_INCHES * (_GAP - bottom) / (columns + _GAP)
    whole_inches = grid_inches + _TITLE_INCHES
    figure.set_size_inches(_GRID_INCHES, whole_inches)
    axes.set_position((0, 0, 1, grid_inches / whole_inches))
    figure.suptitle(title, y=1 - 0.2 * _TITLE_INCHES / whole_inches)
    return figure


def samples(data: ReportData) -> Figure:
    """Some normal images."""
    columns = _SAMPLES // 2
    cells = {divmod(at, columns): _Cell.of(data.normal[at]) for at in range(min(_SAMPLES, len(data.normal)))}
    return _grid("Normal images at the model's input size", cells, columns)


def suspicious(suspects: Sequence[Suspect]) -> Figure:
    """The normal images with the highest scores."""
    cells = {
        divmod(at, _SUSPECT_COLUMNS): _Cell.of(suspect.image, f"{at + 1}.  {suspect.score:.4g}  {_short(suspect.name)}")
        for at, suspect in enumerate(suspects)
    }
    return _grid(
        "Normal images with the highest scores, by models that were not fitted on them", cells, _SUSPECT_COLUMNS
    )


def _short(name: str) -> str:
    """The end of a long name: it tells files apart."""
    return name if len(name) <= _LABEL_LETTERS else f"…{name[1 - _LABEL_LETTERS :]}"


def reconstruction(data: ReportData) -> Figure:
    """One anomaly, its reconstruction, and the error map."""
    anomalies = [index for index, kind in enumerate(data.test_kinds) if kind != NORMAL]
    index = next((i for i in anomalies if data.test_kinds[i] == _PREFERRED_KIND), anomalies[0])
    original, output = data.test[index], outputs(data.model, data.test[[index]])
    figure = Figure(figsize=(7, 3))
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.03, top=0.8, wspace=0.05)
    figure.suptitle(
        f"An anomaly of kind “{data.test_kinds[index]}”: MSE {data.test_scores.mse[index]:.4f}, "
        f"score {data.test_scores.score[index]:.4f}, threshold {data.threshold:.4f}",
        fontsize=10,
    )
    input_axes, reconstruction_axes, error_axes = figure.subplots(1, 3)
    _show(input_axes, original, "input")
    _show(reconstruction_axes, output.reconstruction[0], "reconstruction")
    error_axes.imshow(_error_map(data, original, output), interpolation="nearest")
    error_axes.set_title("error map", fontsize=8)
    error_axes.axis("off")
    return figure


def _error_map(data: ReportData, original: torch.Tensor, output: BatchScores) -> npt.NDArray[np.uint8]:
    """Of one image, as the service shows it."""
    if data.score_is_maximum and output.error_map is not None:
        height, width = original.shape[1:]
        return score_map(output.error_map[0], data.threshold, (height, width))
    return error_map(original, output.reconstruction[0])


def _with_reconstructions(data: ReportData, indices: Sequence[int], row: int) -> dict[tuple[int, int], _Cell]:
    """Two rows from ``row`` on: test images with kind and score, and their reconstructions."""
    scores = data.test_scores
    cells = {}
    for column, index in enumerate(indices):
        label = f"{data.test_kinds[index]}: {scores.score[index]:.4f}"
        cells[row, column] = _Cell.of(data.test[index], label)
        cells[row + 1, column] = _Cell.of(outputs(data.model, data.test[[index]]).reconstruction[0])
    return cells


def gallery(data: ReportData) -> Figure:
    """Two test images of each kind, above their reconstructions."""
    kinds = sorted(set(data.test_kinds))[:_GALLERY_KINDS]
    of_kind = {kind: [i for i, each in enumerate(data.test_kinds) if each == kind] for kind in kinds}
    shown = [index for indices in of_kind.values() for index in indices[:_GALLERY_PER_KIND]]
    cells: dict[tuple[int, int], _Cell] = {}
    for start in range(0, len(shown), _GALLERY_COLUMNS):
        row = 2 * start // _GALLERY_COLUMNS
        cells |= _with_reconstructions(data, shown[start : start + _GALLERY_COLUMNS], row)
    return _grid("Test images (above) and reconstructions (below)", cells, _GALLERY_COLUMNS)


def worst(data: ReportData) -> Figure:
    """The highest-scoring normal and the lowest-scoring anomalous test images, each above its reconstruction."""
    scores = data.test_scores.score
    by_score = sorted(range(len(scores)), key=scores.__getitem__)
    normal = [index for index in reversed(by_score) if data.test_kinds[index] == NORMAL]
    anomalies = [index for index in by_score if data.test_kinds[index] != NORMAL]
    cells = _with_reconstructions(data, normal[:_WORST], 0) | _with_reconstructions(data, anomalies[:_WORST], 2)
    title = f"Worst false alarms (above) and worst misses (below); threshold {data.threshold:.4f}"
    return _grid(title, cells, _WORST)


def localization(data: ReportData) -> Figure:
    """Anomalies of each kind with the map and the regions' boxes, as the service shows them, and the true outlines."""
    with_mask = [at for at, mask in enumerate(data.test_masks) if mask is not None and mask.any()]
    kinds = sorted({data.test_kinds[at] for at in with_mask})[:_GALLERY_KINDS]
    cells = {}
    for row, kind in enumerate(kinds):
        of_kind = [at for at in with_mask if data.test_kinds[at] == kind]
        for column, at in enumerate(of_kind[:_LOCALIZED_COLUMNS]):
            label = f"{kind}: {data.test_scores.score[at]:.4g}"
            cells[row, column] = _Cell(Image.fromarray(_located(data, at)), label)
    title = f"Error map, regions (cyan) and true outlines (green); threshold {data.threshold:.4f}"
    return _grid(title, cells, _LOCALIZED_COLUMNS)


def _located(data: ReportData, at: int) -> npt.NDArray[np.uint8]:
    """One test image at the model's input size."""
    image, mask = data.test[at], data.test_masks[at]
    assert mask is not None  # noqa: S101  the caller's choice
    output = outputs(data.model, image[None])
    assert output.error_map is not None  # noqa: S101  models of training have a map
    errors = output.error_map[0, 0].numpy()
    values = in_score_units(errors, output.score[0], is_maximum=data.score_is_maximum)
    height, width = mask.shape
    size = (width, height)
    placement = Placement.of(size, InputSpec(mode="RGB", height=height, width=width))
    typical = sorted(data.calibration)[len(data.calibration) // 2]
    picture = Localization(values, placement, data.threshold).overlay(to_pixels(image.expand(3, -1, -1)), typical)
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    picture[mask & ~inside] = _TRUE_OUTLINE
    return picture
