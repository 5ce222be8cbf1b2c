"""The figures of a version as table rows: guarantee, evaluation, data and training."""

from collections.abc import Iterable
from typing import Final

from rich.markup import escape
from rich.table import Table

from app.inference.bundles.fitness import fitness
from app.inference.bundles.manifest import Data, Evaluation, Manifest
from app.inference.images.model_input import InputSpec
from training.evaluation.figures import Row, evaluation_rows

_NORMAL: Final = "normal"
_MAX_KINDS: Final = 3
_MEGABYTE: Final = 1e6


def outcome_rows(manifest: Manifest) -> list[Row]:
    """The result of a training run: threshold, guarantee and evaluation."""
    evaluation = manifest.evaluation
    return [
        *(("WARNING", warning) for warning in manifest.warnings),
        ("threshold", f"{manifest.threshold:.6g}  ({manifest.scoring.rule}, {_calibrated_with(manifest)})"),
        ("guaranteed false-alarm rate", f"≤ {manifest.false_alarm_rate:.4g}  ({manifest.guarantee})"),
        *(evaluation_rows(evaluation) if evaluation else [("evaluation", "none: there are no test images")]),
        *(_weakest_kinds(evaluation) if evaluation else []),
        ("fit for use?", fitness(manifest)),
    ]


def all_rows(manifest: Manifest) -> list[Row]:
    """Everything that the manifest contains, except for long lists and checksums."""
    data, training = manifest.data, manifest.training
    return [
        ("created", f"{manifest.created_at:%Y-%m-%d %H:%M} UTC"),
        *outcome_rows(manifest),
        *_recalibration_rows(manifest),
        ("promise", manifest.promise),
        ("score", manifest.scoring.formula),
        ("input", input_text(manifest.input)),
        ("data", f"{data.source}, normal: {data.normal}; {data.unreadable:,} unreadable files{_excluded(data)}"),
        ("normal images", f"{_division(manifest)}; {data.groups:,} groups"),
        *(
            [("near-duplicates", "; ".join(f"{where}: {count:,}" for where, count in data.near_duplicates.items()))]
            if data.near_duplicates
            else []
        ),
        *([("loss", losses)] if (losses := _losses(manifest)) else []),
        *_trial_rows(manifest),
        *_backbone_rows(manifest),
        *_scope_rows(manifest),
        (
            "weights",
            f"{training.parameters:,}, fitted in {training.seconds:.1f} s on {training.device}, seed {training.seed}",
        ),
        ("recipe", ", ".join(f"{name} {_plain(value)}" for name, value in training.recipe.items())),
        ("libraries", ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())),
        ("size", f"{size_of(manifest)} in {len(manifest.files):,} files"),
    ]


def _calibrated_with(manifest: Manifest) -> str:
    images, groups = manifest.calibration.size, manifest.calibration.effective_size
    counted = f"n = {images:,}" if groups == images else f"n = {groups:,} groups of {images:,} images"
    return f"{counted} in {folds} folds" if (folds := manifest.calibration.folds) else counted


def _division(manifest: Manifest) -> str:
    """How the normal images of the training were divided, as text."""
    split = manifest.training.split
    calibration = "the original calibration" if manifest.recalibration else "calibration"
    if not split.calibration:
        return f"{split.fit:,} for training, and for {calibration} in folds"
    return (
        f"{split.fit:,} for training, {len(split.validation):,} for validation, {len(split.calibration):,} for "
        f"{calibration}"
    )


def input_text(spec: InputSpec) -> str:
    """A model's input: colour, height × width, and how images are brought to it."""
    levels = f", levels {spec.black:,g} to {spec.white:,g}" if spec.levels else ""
    background = "" if "background" in spec.unused else f", background {spec.background}"
    return (
        f"{'grey' if spec.mode == 'L' else 'colour'}, {spec.height} × {spec.width}, fit {spec.fit}{levels}{background}"
    )


def _trial_rows(manifest: Manifest) -> list[Row]:
    if (trials := manifest.training.trials) is None:
        return []
    tried = (f"{trial.recipe} at {trial.height} × {trial.width}: {trial.auroc:.3f}" for trial in trials)
    return [("AUROC of synthetic defects", ", ".join(tried))]


def _backbone_rows(manifest: Manifest) -> list[Row]:
    if (backbone := manifest.training.backbone) is None:
        return []
    return [("pretrained network", f"{backbone.name}, {backbone.licence}, SHA-256 {backbone.sha256[:16]}…")]


def _scope_rows(manifest: Manifest) -> list[Row]:
    if (scope := manifest.scope) is None:
        return []
    return [
        (
            "out of scope",
            f"beyond a distance of {scope.limit:.4g} from the training images, by {scope.statistics}; the largest of "
            f"theirs is {scope.largest:.4g}",
        )
    ]


def size_of(manifest: Manifest) -> str:
    """The size of a version's files as text."""
    total = sum(record.bytes for record in manifest.files.values())
    return f"{total / _MEGABYTE:.1f} MB" if total >= _MEGABYTE / 10 else f"{total / 1e3:.1f} kB"


def table_of(rows: Iterable[Row]) -> Table:
    """A table of labels and values, without borders."""
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
            f"({old.guarantee}, ≤ {old.false_alarm_rate:.4g}, {old.size:,} calibration images)",
        ),
        (
            "new normal images",
            f"{old.data.source}{_excluded(old.data)}; at the old threshold, {old.flagged:.2%} of them are anomalies",
        ),
    ]


def _excluded(data: Data) -> str:
    return f", {data.excluded:,} excluded" if data.excluded else ""


def _plain(value: object) -> str:
    return "-".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _losses(manifest: Manifest) -> str:
    loss = manifest.training.loss
    parts = [f"train {loss.train[0]:.5f} → {loss.train[-1]:.5f}"] if loss.train else []
    parts += [f"validation {loss.validation[0]:.5f} → {loss.validation[-1]:.5f}"] if loss.validation else []
    return ", ".join(parts)


def _weakest_kinds(evaluation: Evaluation) -> list[Row]:
    """The kinds of anomalies with the lowest detection rates, which the average hides."""
    kinds = sorted((figures.flagged, kind) for kind, figures in evaluation.kinds.items() if kind != _NORMAL)
    if len(kinds) <= 1:
        return []
    return [("detected least", ", ".join(f"{kind}: {flagged:.1%}" for flagged, kind in kinds[:_MAX_KINDS]))]
