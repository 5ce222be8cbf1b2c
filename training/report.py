"""The report of a training run: PNG charts, and one self-contained HTML page with the charts, figures and settings."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from app.inference.bundles.bundle import BatchScores
from app.inference.bundles.manifest import Manifest
from app.inference.bundles.torchscript import ScoringModel
from app.inference.images.rendering import error_map, score_map, to_image
from training.data.folders import NORMAL
from training.data.images import Images
from training.evaluation import Scores, evaluation_rows, outputs
from training.model.fitting import Epoch
from training.suspects import Suspect

mpl.use("Agg")

NORMAL_COLOUR: Final = "#2a6f97"
ANOMALY_COLOUR: Final = "#d1495b"
_CALIBRATION_COLOUR: Final = "#9aa5ae"
_SAMPLES: Final = 16
_WORST: Final = 8
_GALLERY_COLUMNS: Final = 10
_GALLERY_PER_KIND: Final = 2
_GALLERY_KINDS: Final = 20
_SUSPECT_COLUMNS: Final = 5
_LABEL_LETTERS: Final = 22
_BINS: Final = 60
_MARGIN: Final = 1.05  # against rounding: the outermost scores must be in a bin
_PREFERRED_KIND: Final = "7"  # the anomaly that the tutorial shows

# A grid of images: width of the chart, and heights of gaps and labels in image widths.
_GRID_INCHES: Final = 9
_GAP: Final = 0.06
_LABEL: Final = 0.2
_CELL_PIXELS: Final = 256


class _Cell:
    """An image, (C, H, W) in [0, 1], with its label; reduced, because it is shown small and there are many."""

    def __init__(self, image: torch.Tensor, label: str = "") -> None:
        self.image = to_image(image).convert("RGB")
        self.image.thumbnail((_CELL_PIXELS, _CELL_PIXELS))
        self.label = label


@dataclass(frozen=True)
class ReportData:
    """The data for the charts.

    Attributes:
        model: scored the images.
        normal: the fit part.
        epochs: all epochs, in order.
        calibration: scores of the calibration part.
        threshold: images with a higher score are anomalies.
        false_alarm_rate: α of that threshold.
        test: M images, may be empty.
        test_kinds: M names, ``normal`` or the kind of anomaly.
        test_scores: scores of ``test``.
        score_is_maximum: whether the score is the maximum of the model's error map.
        suspects: the normal images with the highest scores, the highest first.
    """

    model: ScoringModel
    normal: Images
    epochs: Sequence[Epoch]
    calibration: Sequence[float]
    threshold: float
    false_alarm_rate: float
    test: Images
    test_kinds: Sequence[str]
    test_scores: Scores
    score_is_maximum: bool
    suspects: Sequence[Suspect]


WITHOUT_THRESHOLD: Final = ("samples", "loss", "gallery", "precision_recall")
"""The charts that do not depend on the threshold."""

_SUSPECTS: Final = "The most suspicious normal images"

# Section → its charts, each with the text for its alt attribute.
_SECTIONS: Final = {
    "Scores": {
        "recalibration": "Histogram of the calibration scores, old and new, with both thresholds",
        "histogram": "Histogram of the scores of calibration and test images with the threshold",
        "roc": "ROC curve on the test images",
        "precision_recall": "Precision-recall curve on the test images",
    },
    "Training and reconstructions": {
        "samples": "A sample of the normal images",
        "loss": "Training and validation loss by epoch",
        "reconstruction": "An anomaly, its reconstruction and the error map",
        "gallery": "Test images of each kind above their reconstructions",
    },
    _SUSPECTS: {"suspicious": "The ten normal images with the highest scores"},
    "Errors": {"worst": "The worst false alarms and the worst misses"},
}


def write(manifest: Manifest, data: ReportData) -> dict[str, bytes]:
    """The files of the report, by their names in the bundle. Charts of test images are drawn if there are any."""
    return _page(manifest, draw(data), data.suspects)


def write_recalibrated(
    before: Manifest, after: Manifest, kept: Mapping[str, bytes], suspects: Sequence[Suspect]
) -> dict[str, bytes]:
    """The files of the report of a recalibrated version, by their names in the bundle.

    Args:
        before: the version that the weights come from.
        after: the version that the report is for.
        kept: the charts of the old report that are in ``WITHOUT_THRESHOLD``: PNG files by name.
        suspects: the new normal images with the highest scores, the highest first; may be empty.
    """
    charts = {**kept, "recalibration": _png(_histograms(before, after))}
    if suspects:
        charts["suspicious"] = _png(_suspicious(suspects))
    return _page(after, charts, suspects)


def _page(manifest: Manifest, charts: Mapping[str, bytes], suspects: Sequence[Suspect]) -> dict[str, bytes]:
    page = jinja2.Environment(autoescape=True).from_string(Path(__file__).with_suffix(".html").read_text("utf-8"))
    sections = {title: [name for name in names if name in charts] for title, names in _SECTIONS.items()}
    html = page.render(
        manifest=manifest,
        figures=evaluation_rows(manifest.evaluation) if manifest.evaluation else [],
        suspects={_SUSPECTS: suspects},
        sections=[(title, names) for title, names in sections.items() if names],
        alt={name: text for names in _SECTIONS.values() for name, text in names.items()},
        charts={name: base64.b64encode(content).decode() for name, content in charts.items()},
    )
    files = {f"report/{name}.png": content for name, content in charts.items()}
    return {**files, "report/index.html": html.encode()}


def draw(data: ReportData) -> dict[str, bytes]:
    """Draws all charts: PNG files by name."""
    kinds = set(data.test_kinds)
    figures = {
        "samples": _samples(data),
        "histogram": _histogram(data),
        "suspicious": _suspicious(data.suspects),
    }
    if data.epochs:
        figures["loss"] = _loss(data.epochs)
    if kinds - {NORMAL}:
        figures["reconstruction"] = _reconstruction(data)
    if NORMAL in kinds and len(kinds) > 1:
        figures["roc"] = _roc(data)
        figures["precision_recall"] = _precision_recall(data)
    if kinds:
        figures["worst"] = _worst(data)
        figures["gallery"] = _gallery(data)
    return {name: _png(figure) for name, figure in figures.items()}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _show(axes: mpl.axes.Axes, image: torch.Tensor, title: str = "") -> None:
    axes.imshow(to_image(image).convert("RGB"), interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.axis("off")


def _grid(title: str, cells: Mapping[tuple[int, int], _Cell], columns: int) -> Figure:
    """Images of one size in rows and columns, with labels above them.

    They share one ``Axes``: with one for each image, the layout would take a hundred times as long as the drawing.

    Args:
        title: of the chart.
        cells: the images, by (row, column).
        columns: number of columns, including empty ones.
    """
    height = max(cell.image.height / cell.image.width for cell in cells.values())
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    figure.suptitle(title)
    bottom = 0.0
    for row in range(max(row for row, _ in cells) + 1):
        labelled = any((row, column) in cells and cells[row, column].label for column in range(columns))
        top = bottom - (_LABEL if labelled else _GAP)
        bottom = top - height
        for column in range(columns):
            if cell := cells.get((row, column)):
                axes.imshow(cell.image, interpolation="nearest", extent=(column, column + 1 - _GAP, bottom, top))
                axes.text(column, top + _GAP / 2, cell.label, fontsize=7)
    axes.set(xlim=(0, columns), ylim=(bottom, 0))
    figure.set_size_inches(_GRID_INCHES, _GRID_INCHES / columns * -bottom + 0.5)
    return figure


def _samples(data: ReportData) -> Figure:
    columns = _SAMPLES // 2
    cells = {divmod(at, columns): _Cell(data.normal[at]) for at in range(min(_SAMPLES, len(data.normal)))}
    return _grid("Normal images at the model's input size", cells, columns)


def _suspicious(suspects: Sequence[Suspect]) -> Figure:
    cells = {
        divmod(at, _SUSPECT_COLUMNS): _Cell(suspect.image, f"{at + 1}.  {suspect.score:.4g}  {_short(suspect.name)}")
        for at, suspect in enumerate(suspects)
    }
    return _grid(
        "Normal images with the highest scores, by models that were not fitted on them", cells, _SUSPECT_COLUMNS
    )


def _short(name: str) -> str:
    """The end of a long name: it tells files apart."""
    return name if len(name) <= _LABEL_LETTERS else f"…{name[1 - _LABEL_LETTERS :]}"


def _loss(epochs: Sequence[Epoch]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    numbers = [epoch.number for epoch in epochs]
    axes.plot(numbers, [epoch.train_loss for epoch in epochs], marker="o", ms=3, label="train", color=NORMAL_COLOUR)
    validation = [(epoch.number, epoch.validation_loss) for epoch in epochs if epoch.validation_loss is not None]
    if validation:
        axes.plot(*zip(*validation, strict=True), marker="o", ms=3, label="validation", color=ANOMALY_COLOUR)
    if pruned := [epoch.number for epoch in epochs if epoch.pruned]:
        axes.axvline(pruned[0] - 0.5, color="grey", ls=":", lw=1, label="pruned")
    axes.set(xlabel="epoch", ylabel="mean squared error", title="Loss", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def _reconstruction(data: ReportData) -> Figure:
    """One anomaly, its reconstruction, and the error map."""
    anomalies = [index for index, kind in enumerate(data.test_kinds) if kind != NORMAL]
    index = next((i for i in anomalies if data.test_kinds[i] == _PREFERRED_KIND), anomalies[0])
    original, output = data.test[index], outputs(data.model, data.test[[index]])
    figure = Figure(figsize=(7, 3), layout="constrained")
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


def _histogram(data: ReportData) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    scores = np.array(data.test_scores.score)
    anomalous = np.array([kind != NORMAL for kind in data.test_kinds], dtype=bool)
    series = [("calibration (normal)", np.array(data.calibration), _CALIBRATION_COLOUR)]
    series += [("test, normal", scores[~anomalous], NORMAL_COLOUR)] if (~anomalous).any() else []
    series += [("test, anomalies", scores[anomalous], ANOMALY_COLOUR)] if anomalous.any() else []
    bins = score_bins([values for _, values, _ in series], [data.threshold])
    for label, values, colour in series:
        _add_histogram(axes, values, bins, label=f"{label}, {len(values):,}", color=colour)
    axes.axvline(data.threshold, color="black", lw=1, ls="--", label=f"threshold at α = {data.false_alarm_rate:g}")
    axes.set(xlabel="score", ylabel="share of the images", title="Scores and the threshold")
    axes.legend(fontsize=8)
    return figure


def _histograms(before: Manifest, after: Manifest) -> Figure:
    """The calibration scores of the old and the new threshold."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    versions = (("old", before, _CALIBRATION_COLOUR), ("new", after, NORMAL_COLOUR))
    scores = [np.array(each.calibration.scores) for _, each, _ in versions]
    bins = score_bins(scores, [before.threshold, after.threshold])
    for age, each, colour in versions:
        label = f"{age} calibration, {each.calibration.size:,}"
        _add_histogram(axes, np.array(each.calibration.scores), bins, label=label, color=colour)
        label = f"{age} threshold, α = {each.false_alarm_rate:g}"
        axes.axvline(each.threshold, color=colour, lw=1.5, ls="--", label=label)
    axes.set(xlabel="score", ylabel="share of the images", title="Recalibration: scores and thresholds")
    axes.legend(fontsize=8)
    return figure


def score_bins(scores: Sequence[npt.NDArray[np.float64]], thresholds: Sequence[float]) -> npt.NDArray[np.float64]:
    """Edges of the bins of a histogram that hold all scores and thresholds.

    They are spaced logarithmically, because scores can span orders of magnitude; evenly if some scores are zero.
    """
    lowest = min(float(values.min()) for values in scores)
    highest = max(*(float(values.max()) for values in scores), *(1.2 * threshold for threshold in thresholds))
    if lowest <= 0:
        return np.linspace(0, highest or 1, _BINS)
    return np.geomspace(lowest / _MARGIN, highest * _MARGIN, _BINS)


def _add_histogram(
    axes: Axes, scores: npt.NDArray[np.float64], bins: npt.NDArray[np.float64], *, label: str, color: str
) -> None:
    weights = np.full(len(scores), 1 / len(scores))
    axes.hist(scores, bins=list(bins), weights=list(weights), alpha=0.55, label=label, color=color)
    axes.set_xscale("log" if bins[0] > 0 else "linear")


def _roc(data: ReportData) -> Figure:
    anomalous = [kind != NORMAL for kind in data.test_kinds]
    false_alarms, detections, thresholds = roc_curve(anomalous, data.test_scores.score)
    at = int(np.searchsorted(-thresholds, -data.threshold))
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(false_alarms, detections, color=NORMAL_COLOUR)
    axes.plot(
        false_alarms[max(at - 1, 0)],
        detections[max(at - 1, 0)],
        "o",
        color=ANOMALY_COLOUR,
        label="at the threshold",
    )
    axes.plot([0, 1], [0, 1], color="#cccccc", lw=1, zorder=0)
    axes.set(xlabel="false-alarm rate", ylabel="detection rate", title="ROC on the test images")
    axes.legend(loc="lower right")
    return figure


def _precision_recall(data: ReportData) -> Figure:
    anomalous = [kind != NORMAL for kind in data.test_kinds]
    precision, recall, _ = precision_recall_curve(anomalous, data.test_scores.score)
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(recall, precision, color=NORMAL_COLOUR)
    axes.set(
        xlabel="recall (detection rate)", ylabel="precision", title="Precision and recall", xlim=(0, 1), ylim=(0, 1.02)
    )
    return figure


def _with_reconstructions(data: ReportData, indices: Sequence[int], row: int) -> dict[tuple[int, int], _Cell]:
    """Two rows from ``row`` on: test images with kind and score, and their reconstructions."""
    scores = data.test_scores
    cells = {}
    for column, index in enumerate(indices):
        label = f"{data.test_kinds[index]}: {scores.score[index]:.4f}"
        cells[row, column] = _Cell(data.test[index], label)
        cells[row + 1, column] = _Cell(outputs(data.model, data.test[[index]]).reconstruction[0])
    return cells


def _gallery(data: ReportData) -> Figure:
    """Two test images of each kind, above their reconstructions."""
    kinds = sorted(set(data.test_kinds))[:_GALLERY_KINDS]
    of_kind = {kind: [i for i, each in enumerate(data.test_kinds) if each == kind] for kind in kinds}
    shown = [index for indices in of_kind.values() for index in indices[:_GALLERY_PER_KIND]]
    cells: dict[tuple[int, int], _Cell] = {}
    for start in range(0, len(shown), _GALLERY_COLUMNS):
        row = 2 * start // _GALLERY_COLUMNS
        cells |= _with_reconstructions(data, shown[start : start + _GALLERY_COLUMNS], row)
    return _grid("Test images (above) and reconstructions (below)", cells, _GALLERY_COLUMNS)


def _worst(data: ReportData) -> Figure:
    """The highest-scoring normal and the lowest-scoring anomalous test images, each above its reconstruction."""
    scores = data.test_scores.score
    by_score = sorted(range(len(scores)), key=scores.__getitem__)
    normal = [index for index in reversed(by_score) if data.test_kinds[index] == NORMAL]
    anomalies = [index for index in by_score if data.test_kinds[index] != NORMAL]
    cells = _with_reconstructions(data, normal[:_WORST], 0) | _with_reconstructions(data, anomalies[:_WORST], 2)
    title = f"Worst false alarms (above) and worst misses (below); threshold {data.threshold:.4f}"
    return _grid(title, cells, _WORST)
