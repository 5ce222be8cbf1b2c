"""The files of a report: the charts, and the HTML page that holds them all with figures and settings."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import jinja2
from matplotlib.figure import Figure

from app.inference.bundles.fitness import fitness
from app.inference.bundles.manifest import Manifest
from training.data.folders import NORMAL
from training.evaluation.figures import evaluation_rows
from training.reporting import charts, pictures
from training.reporting.data import ReportData
from training.suspects import Suspect

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
    "Where the defects are": {"localization": "Anomalies with the error map, the regions and the true outlines"},
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
    drawn = {**kept, "recalibration": _png(charts.histograms(before, after))}
    if suspects:
        drawn["suspicious"] = _png(pictures.suspicious(suspects))
    return _page(after, drawn, suspects)


def _page(manifest: Manifest, drawn: Mapping[str, bytes], suspects: Sequence[Suspect]) -> dict[str, bytes]:
    page = jinja2.Environment(autoescape=True).from_string(Path(__file__).with_suffix(".html").read_text("utf-8"))
    sections = {title: [name for name in names if name in drawn] for title, names in _SECTIONS.items()}
    html = page.render(
        manifest=manifest,
        fitness=fitness(manifest),
        figures=evaluation_rows(manifest.evaluation) if manifest.evaluation else [],
        suspects={_SUSPECTS: suspects},
        sections=[(title, names) for title, names in sections.items() if names],
        alt={name: text for names in _SECTIONS.values() for name, text in names.items()},
        charts={name: base64.b64encode(content).decode() for name, content in drawn.items()},
    )
    files = {f"report/{name}.png": content for name, content in drawn.items()}
    return {**files, "report/index.html": html.encode()}


def draw(data: ReportData) -> dict[str, bytes]:
    """Draws all charts: PNG files by name."""
    kinds = set(data.test_kinds)
    figures = {
        "samples": pictures.samples(data),
        "histogram": charts.histogram(data),
        "suspicious": pictures.suspicious(data.suspects),
    }
    if data.epochs:
        figures["loss"] = charts.loss(data.epochs)
    if kinds - {NORMAL}:
        figures["reconstruction"] = pictures.reconstruction(data)
    if NORMAL in kinds and len(kinds) > 1:
        figures["roc"] = charts.roc(data)
        figures["precision_recall"] = charts.precision_recall(data)
    if any(mask is not None and mask.any() for mask in data.test_masks):
        figures["localization"] = pictures.localization(data)
    if kinds:
        figures["worst"] = pictures.worst(data)
        figures["gallery"] = pictures.gallery(data)
    return {name: _png(figure) for name, figure in figures.items()}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
