"""The report of a training run: what went in, how it went, how it separates, where it errs.

PNG charts, and one self-contained HTML page that shows them with the figures and the settings.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2
import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from app.inference.bundles.bundle import BatchScores
from app.inference.bundles.manifest import Manifest
from app.inference.images.rendering import error_map, to_image
from training.data.folders import NORMAL
from training.evaluation import evaluation_rows
from training.model.fitting import Epoch

mpl.use("Agg")

NORMAL_COLOUR: Final = "#2a6f97"
ANOMALY_COLOUR: Final = "#d1495b"
_SAMPLES: Final = 16
_WORST: Final = 8
_WIDE: Final = 10
_EACH: Final = 2
_KINDS: Final = 20
_SHOWN_FIRST: Final = "7"  # the tutorial shows a seven where there is one


# A grid of images: its width, and the gaps in widths of an image.
_INCHES: Final = 9
_GAP: Final = 0.06
_LABEL: Final = 0.2


@dataclass(frozen=True)
class _Cell:
    """An image, (C, H, W), in a grid."""

    image: torch.Tensor
    label: str = ""


@dataclass(frozen=True)
class ReportData:
    """What the charts are drawn from.

    Attributes:
        normal: (N, C, H, W) images that were fitted on.
        epochs: the training's course.
        calibration: scores of the calibration part.
        threshold: above it an image is an anomaly.
        false_alarm_rate: α of that threshold.
        test: (M, C, H, W), may be empty.
        test_kinds: M names, ``normal`` or the kind of anomaly.
        test_scores: what the model made of ``test``.
    """

    normal: torch.Tensor
    epochs: Sequence[Epoch]
    calibration: Sequence[float]
    threshold: float
    false_alarm_rate: float
    test: torch.Tensor
    test_kinds: Sequence[str]
    test_scores: BatchScores


WITHOUT_THRESHOLD: Final = ("samples", "loss", "gallery", "precision_recall")
"""Images that stay true when only the threshold changes."""

# Section → its charts, each with a text alternative.
_SECTIONS: Final = {
    "How the scores separate": {
        "recalibration": "Histogram of the calibration scores, old and new, with both thresholds",
        "histogram": "Histogram of the scores of calibration and test images with the threshold",
        "roc": "ROC curve on the test images",
        "precision_recall": "Precision-recall curve on the test images",
    },
    "What was learned": {
        "samples": "A sample of the normal images",
        "loss": "Training and validation loss by epoch",
        "reconstruction": "An anomaly, its reconstruction and the error map",
        "gallery": "Test images of each kind above their reconstructions",
    },
    "Where it errs": {"worst": "The worst false alarms and the worst misses"},
}


def write(manifest: Manifest, material: ReportData) -> dict[str, bytes]:
    """All files of the report by their name in the bundle; charts of test images only where there are any."""
    return _page(manifest, draw(material))


def write_recalibrated(before: Manifest, after: Manifest, kept: Mapping[str, bytes]) -> dict[str, bytes]:
    """The report of a version that has another's weights.

    Args:
        before: the version that the weights come from.
        after: the version that the report is for.
        kept: PNG files of the old report by name, of ``WITHOUT_THRESHOLD``.
    """
    return _page(after, {**kept, "recalibration": _png(_histograms(before, after))})


def _page(manifest: Manifest, charts: Mapping[str, bytes]) -> dict[str, bytes]:
    page = jinja2.Environment(autoescape=True).from_string(Path(__file__).with_suffix(".html").read_text("utf-8"))
    sections = {title: [name for name in names if name in charts] for title, names in _SECTIONS.items()}
    html = page.render(
        manifest=manifest,
        figures=evaluation_rows(manifest.evaluation) if manifest.evaluation else [],
        sections=[(title, names) for title, names in sections.items() if names],
        alternatives={name: text for names in _SECTIONS.values() for name, text in names.items()},
        charts={name: base64.b64encode(content).decode() for name, content in charts.items()},
    )
    files = {f"report/{name}.png": content for name, content in charts.items()}
    return {**files, "report/index.html": html.encode()}


def draw(material: ReportData) -> dict[str, bytes]:
    """PNG files by name."""
    kinds = set(material.test_kinds)
    figures = {
        "samples": _samples(material),
        "loss": _loss(material.epochs),
        "histogram": _histogram(material),
    }
    if kinds - {NORMAL}:
        figures["reconstruction"] = _reconstruction(material)
    if NORMAL in kinds and len(kinds) > 1:
        figures["roc"] = _roc(material)
        figures["precision_recall"] = _precision_recall(material)
    if kinds:
        figures["worst"] = _worst(material)
        figures["gallery"] = _gallery(material)
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
    """Images of one size in rows and columns, by (row, column), the labels above.

    All of them share one pair of axes: a pair for each would take a hundred times as long to lay out as to draw.

    Args:
        title: above all.
        cells: the images.
        columns: how many columns there are, empty ones included.
    """
    height = max(cell.image.shape[-2] / cell.image.shape[-1] for cell in cells.values())
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
                pixels = to_image(cell.image).convert("RGB")
                axes.imshow(pixels, interpolation="nearest", extent=(column, column + 1 - _GAP, bottom, top))
                axes.text(column, top + _GAP / 2, cell.label, fontsize=7)
    axes.set(xlim=(0, columns), ylim=(bottom, 0))
    figure.set_size_inches(_INCHES, _INCHES / columns * -bottom + 0.5)
    return figure


def _samples(material: ReportData) -> Figure:
    columns = _SAMPLES // 2
    cells = {divmod(at, columns): _Cell(image) for at, image in enumerate(material.normal[:_SAMPLES])}
    return _grid("Normal images, as the model sees them", cells, columns)


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


def _reconstruction(material: ReportData) -> Figure:
    """One anomaly, what the model makes of it, and where they differ."""
    anomalies = [index for index, kind in enumerate(material.test_kinds) if kind != NORMAL]
    index = next((i for i in anomalies if material.test_kinds[i] == _SHOWN_FIRST), anomalies[0])
    original, rebuilt = material.test[index], material.test_scores.reconstruction[index]
    figure = Figure(figsize=(7, 3), layout="constrained")
    figure.suptitle(
        f"An anomaly of kind “{material.test_kinds[index]}”: MSE {material.test_scores.mse[index]:.4f}, "
        f"score {material.test_scores.score[index]:.4f}, threshold {material.threshold:.4f}",
        fontsize=10,
    )
    input_axes, rebuilt_axes, error_axes = figure.subplots(1, 3)
    _show(input_axes, original, "input")
    _show(rebuilt_axes, rebuilt, "reconstruction")
    error_axes.imshow(error_map(original, rebuilt), interpolation="nearest")
    error_axes.set_title("error map", fontsize=8)
    error_axes.axis("off")
    return figure


def _histogram(material: ReportData) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    scores = np.array(material.test_scores.score)
    anomalous = np.array([kind != NORMAL for kind in material.test_kinds], dtype=bool)
    series = [("calibration (normal)", np.array(material.calibration), "#9aa5ae")]
    series += [("test, normal", scores[~anomalous], NORMAL_COLOUR)] if (~anomalous).any() else []
    series += [("test, anomalies", scores[anomalous], ANOMALY_COLOUR)] if anomalous.any() else []
    top = float(np.quantile(np.concatenate([values for _, values, _ in series]), 0.995))
    bins = np.linspace(0, max(top, material.threshold * 1.2), 60)
    for label, values, colour in series:
        axes.hist(values, bins=list(bins), density=True, alpha=0.55, label=f"{label}, {len(values):,}", color=colour)
    axes.axvline(
        material.threshold,
        color="black",
        lw=1,
        ls="--",
        label=f"threshold at α = {material.false_alarm_rate:g}",
    )
    axes.set(xlabel="score", ylabel="density", title="Scores and the threshold")
    axes.legend(fontsize=8)
    return figure


def _histograms(before: Manifest, after: Manifest) -> Figure:
    """The calibration scores that set the old threshold and those that set the new one."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    versions = (("old", before, "#9aa5ae"), ("new", after, NORMAL_COLOUR))
    top = max(max(each.threshold * 1.2, each.calibration.scores[-1]) for _, each, _ in versions)
    for word, each, colour in versions:
        label = f"{word} calibration, {each.calibration.size:,}"
        axes.hist(
            each.calibration.scores, list(np.linspace(0, top, 60)), density=True, alpha=0.55, label=label, color=colour
        )
        label = f"{word} threshold, α = {each.false_alarm_rate:g}"
        axes.axvline(each.threshold, color=colour, lw=1.5, ls="--", label=label)
    axes.set(xlabel="score", ylabel="density", title="Recalibration: scores and thresholds")
    axes.legend(fontsize=8)
    return figure


def _roc(material: ReportData) -> Figure:
    anomalous = [kind != NORMAL for kind in material.test_kinds]
    false_alarms, detections, thresholds = roc_curve(anomalous, material.test_scores.score)
    at = int(np.searchsorted(-thresholds, -material.threshold))
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


def _precision_recall(material: ReportData) -> Figure:
    anomalous = [kind != NORMAL for kind in material.test_kinds]
    precision, recall, _ = precision_recall_curve(anomalous, material.test_scores.score)
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(recall, precision, color=NORMAL_COLOUR)
    axes.set(
        xlabel="recall (detection rate)", ylabel="precision", title="Precision and recall", xlim=(0, 1), ylim=(0, 1.02)
    )
    return figure


def _with_reconstructions(material: ReportData, indices: Sequence[int], row: int) -> dict[tuple[int, int], _Cell]:
    """Two rows from ``row`` on: test images with kind and score, and what the model makes of them."""
    scores = material.test_scores
    cells = {}
    for column, index in enumerate(indices):
        label = f"{material.test_kinds[index]}: {scores.score[index]:.4f}"
        cells[row, column] = _Cell(material.test[index], label)
        cells[row + 1, column] = _Cell(scores.reconstruction[index])
    return cells


def _gallery(material: ReportData) -> Figure:
    """Two test images of each kind, above their reconstructions."""
    kinds = sorted(set(material.test_kinds))[:_KINDS]
    shown = [index for kind in kinds for index in [i for i, k in enumerate(material.test_kinds) if k == kind][:_EACH]]
    cells: dict[tuple[int, int], _Cell] = {}
    for start in range(0, len(shown), _WIDE):
        cells |= _with_reconstructions(material, shown[start : start + _WIDE], 2 * start // _WIDE)
    return _grid("Test images (above) and reconstructions (below)", cells, _WIDE)


def _worst(material: ReportData) -> Figure:
    """The highest-scoring normal and the lowest-scoring anomalous test images, each above its reconstruction."""
    scores = material.test_scores.score
    by_score = sorted(range(len(scores)), key=scores.__getitem__)
    normal = [index for index in reversed(by_score) if material.test_kinds[index] == NORMAL]
    anomalies = [index for index in by_score if material.test_kinds[index] != NORMAL]
    cells = _with_reconstructions(material, normal[:_WORST], 0) | _with_reconstructions(material, anomalies[:_WORST], 2)
    title = f"Worst false alarms (above) and worst misses (below); threshold {material.threshold:.4f}"
    return _grid(title, cells, _WORST)
