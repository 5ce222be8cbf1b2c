"""Charts of scores and losses."""

from collections.abc import Sequence
from typing import Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from app.inference.bundles.manifest import Manifest
from training.data.folders import NORMAL
from training.model.fitting import Epoch
from training.reporting.data import ReportData

mpl.use("Agg")

NORMAL_COLOUR: Final = "#2a6f97"
ANOMALY_COLOUR: Final = "#d1495b"
_CALIBRATION_COLOUR: Final = "#9aa5ae"
_BINS: Final = 60
_MARGINS_INCHES: Final = (0.9, 0.2, 0.55, 0.4)  # left, right, bottom, top
_MARGIN: Final = 1.05  # against rounding: the outermost scores must be in a bin


def _chart(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches, with room around its axes for labels of usual length.

    The margins are fixed: a layout that measures all labels takes longer than the drawing.
    """
    figure = Figure(figsize=(width, height))
    left, right, bottom, top = _MARGINS_INCHES
    axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
    return figure, axes


def loss(epochs: Sequence[Epoch]) -> Figure:
    """Training and validation loss by epoch."""
    figure, axes = _chart(6, 4)
    numbers = [epoch.number for epoch in epochs]
    axes.plot(numbers, [epoch.train_loss for epoch in epochs], marker="o", ms=3, label="train", color=NORMAL_COLOUR)
    validation = [(epoch.number, epoch.validation_loss) for epoch in epochs if epoch.validation_loss is not None]
    if validation:
        axes.plot(*zip(*validation, strict=True), marker="o", ms=3, label="validation", color=ANOMALY_COLOUR)
    if pruned := [epoch.number for epoch in epochs if epoch.pruned]:
        axes.axvline(pruned[0] - 0.5, color="grey", ls=":", lw=1, label="pruned")
    axes.set(xlabel="epoch", ylabel="mean squared error", title="Loss", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper right")  # a search for the best place takes a second on a busy machine
    return figure


def histogram(data: ReportData) -> Figure:
    """The scores of calibration and test images, with the threshold."""
    figure, axes = _chart(7, 4)
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
    axes.legend(loc="upper right", fontsize=8)
    return figure


def histograms(before: Manifest, after: Manifest) -> Figure:
    """The calibration scores of the old and the new threshold."""
    figure, axes = _chart(7, 4)
    versions = (("old", before, _CALIBRATION_COLOUR), ("new", after, NORMAL_COLOUR))
    scores = [np.array(each.calibration.scores) for _, each, _ in versions]
    bins = score_bins(scores, [before.threshold, after.threshold])
    for age, each, colour in versions:
        label = f"{age} calibration, {each.calibration.size:,}"
        _add_histogram(axes, np.array(each.calibration.scores), bins, label=label, color=colour)
        label = f"{age} threshold, α = {each.false_alarm_rate:g}"
        axes.axvline(each.threshold, color=colour, lw=1.5, ls="--", label=label)
    axes.set(xlabel="score", ylabel="share of the images", title="Recalibration: scores and thresholds")
    axes.legend(loc="upper right", fontsize=8)
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
    shares = np.histogram(scores, bins)[0] / len(scores)
    axes.stairs(shares, bins, fill=True, alpha=0.55, label=label, color=color)  # one shape instead of sixty bars
    axes.set_xscale("log" if bins[0] > 0 else "linear")


def roc(data: ReportData) -> Figure:
    """The ROC curve on the test images, with the threshold."""
    anomalous = [kind != NORMAL for kind in data.test_kinds]
    false_alarms, detections, thresholds = roc_curve(anomalous, data.test_scores.score)
    at = int(np.searchsorted(-thresholds, -data.threshold))
    figure, axes = _chart(4.6, 4.4)
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


def precision_recall(data: ReportData) -> Figure:
    """Precision and recall on the test images."""
    anomalous = [kind != NORMAL for kind in data.test_kinds]
    precision, recall, _ = precision_recall_curve(anomalous, data.test_scores.score)
    figure, axes = _chart(4.6, 4.4)
    axes.plot(recall, precision, color=NORMAL_COLOUR)
    axes.set(
        xlabel="recall (detection rate)", ylabel="precision", title="Precision and recall", xlim=(0, 1), ylim=(0, 1.02)
    )
    return figure
