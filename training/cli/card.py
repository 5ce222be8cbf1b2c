"""A version's figures as rows for people: what it promises, how it does, how it came to be."""

from collections.abc import Iterable
from typing import Final

from rich.markup import escape
from rich.table import Table

from app.inference.bundles.manifest import Evaluation, Manifest
from training.evaluation import Row, evaluation_rows

_NORMAL: Final = "normal"
_WEAKEST: Final = 3
_MEGABYTE: Final = 1e6


def outcome_rows(manifest: Manifest) -> list[Row]:
    """What a run ends with: the threshold, its promise, and how the model does at it."""
    evaluation = manifest.evaluation
    return [
        ("threshold", f"{manifest.threshold:.6g}  ({manifest.scoring.rule}, n = {manifest.calibration.size:,})"),
        ("guaranteed false alarms", f"≤ {manifest.false_alarm_rate:.4g}  ({manifest.guarantee})"),
        *(evaluation_rows(evaluation) if evaluation else [("evaluated", "no: there are no test images")]),
        *(_weakest_kinds(evaluation) if evaluation else []),
    ]


def all_rows(manifest: Manifest) -> list[Row]:
    """The whole card, without the bulk."""
    spec, data, training = manifest.input, manifest.data, manifest.training
    split = training.split
    return [
        ("created", f"{manifest.created_at:%Y-%m-%d %H:%M} UTC"),
        *outcome_rows(manifest),
        *_recalibration_rows(manifest),
        ("promise", manifest.promise),
        ("score", manifest.scoring.formula),
        ("input", f"{'grey' if spec.mode == 'L' else 'colour'}, {spec.height} × {spec.width}"),
        ("data", f"{data.source}, normal: {data.normal}; {data.unreadable:,} files unreadable"),
        (
            "normal images",
            f"{split.fit:,} to fit, {len(split.validation):,} to watch, {len(split.calibration):,} to calibrate"
            f"{' at first' if manifest.recalibration else ''}; "
            f"{data.groups:,} things shown",
        ),
        *(
            [("near-duplicates", "; ".join(f"{where}: {count:,}" for where, count in data.near_duplicates.items()))]
            if data.near_duplicates
            else []
        ),
        ("loss", _losses(manifest)),
        (
            "weights",
            f"{training.parameters:,}, fitted in {training.seconds:.1f} s on {training.device}, seed {training.seed}",
        ),
        ("recipe", ", ".join(f"{knob} {_plain(value)}" for knob, value in training.recipe.items())),
        ("libraries", ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())),
        ("size", f"{size_of(manifest)} in {len(manifest.files):,} files"),
    ]


def size_of(manifest: Manifest) -> str:
    """What the files of a version take, for people."""
    total = sum(record.bytes for record in manifest.files.values())
    return f"{total / _MEGABYTE:.1f} MB" if total >= _MEGABYTE / 10 else f"{total / 1e3:.1f} kB"


def table_of(rows: Iterable[Row]) -> Table:
    """Labels to the left, values to the right of them."""
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, escape(value))
    return table


def _recalibration_rows(manifest: Manifest) -> list[Row]:
    if (old := manifest.recalibration) is None:
        return []
    return [
        (
            "recalibrated",
            f"the weights are those of {old.version}, whose threshold was {old.threshold:.6g} "
            f"({old.guarantee}, ≤ {old.false_alarm_rate:.4g}, n = {old.size:,})",
        ),
        ("new normal images", f"{old.data.source}; the old threshold calls {old.flagged:.2%} of them anomalies"),
    ]


def _plain(value: object) -> str:
    return "-".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _losses(manifest: Manifest) -> str:
    loss = manifest.training.loss
    parts = [f"train {loss.train[0]:.5f} → {loss.train[-1]:.5f}"] if loss.train else []
    parts += [f"validation {loss.validation[0]:.5f} → {loss.validation[-1]:.5f}"] if loss.validation else []
    return ", ".join(parts)


def _weakest_kinds(evaluation: Evaluation) -> list[Row]:
    """Which anomalies escape most: where an average hides what matters."""
    kinds = sorted((figures.flagged, kind) for kind, figures in evaluation.kinds.items() if kind != _NORMAL)
    if len(kinds) <= 1:
        return []
    return [("detected least", ", ".join(f"{kind}: {flagged:.1%}" for flagged, kind in kinds[:_WEAKEST]))]
