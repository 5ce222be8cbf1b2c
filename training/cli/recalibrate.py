"""``python -m training recalibrate NAME --images FOLDER``: a new threshold for the same weights."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.inference.bundles.signing import TrustedKeys
from app.inference.bundles.store import ModelStore
from app.inference.decisions.conformal import anomaly_rate
from training.cli.interrupts import exit_on_interrupt
from training.cli.key_files import signing_key
from training.cli.options import add_exclude, add_force, add_guarantee_of_current
from training.cli.parser import (
    add_store_command,
    add_trusted_keys,
    command_line,
    console,
    print_first,
    print_notes,
    print_suspects,
    print_warnings,
)
from training.errors import TrainingError

if TYPE_CHECKING:
    from app.command_line import Commands
    from training.recalibration import NewImages, Recalibrated


def add_to(commands: "Commands") -> None:
    """Adds the command."""
    add_store_command(
        commands,
        "recalibrate",
        ["NAME"],
        summary="a new threshold for the same weights",
        description="Publishes a new version with the weights of the current one and a threshold from\n"
        "new normal images, for example after a change of camera, light or product. The\n"
        "weights must not have been fitted on these images. With --feedback instead of\n"
        "--images, it uses the scores of images that operators labelled.",
        run=run,
        add_options=_add_options,
        required_options=["--images FOLDER"],
    )


def _add_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--images", metavar="FOLDER", type=Path, help="normal images, or training data, whose normal images are used")
    add_exclude(group, relative_to="--images")
    add("--feedback", metavar="FILE", type=Path, help="operators' labels, as written by the service")
    add_guarantee_of_current(group)
    add(
        "--sign-key",
        metavar="FILE",
        type=signing_key,
        help="sign the new version with this private key; the current one must be signed with it or a trusted key",
    )
    add_force(group)
    add_trusted_keys(group)


def run(options: argparse.Namespace) -> None:
    """Scores new normal images, publishes a version with their threshold, and compares it with the old version.

    Raises:
        TrainingError, InferenceError: it failed; the text gives the reason.
    """
    if (options.images is None) is (options.feedback is None):
        raise TrainingError("normal images are required: give either --images FOLDER or --feedback FILE")
    if options.exclude and not options.images:
        raise TrainingError("--exclude is for --images: labels are in the hands of the operators")
    with exit_on_interrupt():
        from training.recalibration import from_images, from_labels, recalibrate  # noqa: PLC0415
    store = _store(options)
    bundle = store.load(options.name, store.current(options.name))
    new = (
        from_images(bundle, options.images, options.groups, exclude=options.exclude, force=options.force)
        if options.images
        else from_labels(store, bundle, options.feedback)
    )
    out = console()
    print_first(out, "skipped", new.skipped)
    print_notes(out, new.remarks, new.data.excluded)
    print_warnings(out, new.warnings)
    recalibrated = recalibrate(
        store,
        bundle,
        new,
        false_alarm_rate=options.false_alarm_rate or bundle.manifest.false_alarm_rate,
        guarantee=options.guarantee or bundle.manifest.guarantee,
        key=options.sign_key,
    )
    if new.suspects:
        print_suspects(out, new.suspects)
        out.print("")
    _show(out, new, recalibrated, options.store)


def _store(options: argparse.Namespace) -> ModelStore:
    """The store. With ``--sign-key``, the current version must be signed too: the new signature covers its weights."""
    trusted: TrustedKeys | None = options.trusted_keys
    if options.sign_key is not None:
        own = options.sign_key.public
        trusted = trusted.with_key(own) if trusted else TrustedKeys([own])
    return ModelStore(options.store, trusted)


def _show(out: Console, new: "NewImages", recalibrated: "Recalibrated", store: Path) -> None:
    before, after = recalibrated.before, recalibrated.after
    out.print(f"[bold green]published[/] [bold]{after.name} {after.version}[/]\n", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False)
    table.add_column("")
    for age, each in (("old", before), ("new", after)):
        table.add_column(f"{age}\n{each.version}", justify="right", overflow="fold")
    versions = (before, after)
    table.add_row("threshold", *(f"{each.threshold:.6g}" for each in versions))
    table.add_row(
        "guaranteed false-alarm rate", *(f"≤ {each.false_alarm_rate:.4g} ({each.guarantee})" for each in versions)
    )
    table.add_row("calibration images", *(f"{each.calibration.size:,}" for each in versions))
    table.add_row("calibration groups", *(f"{each.calibration.effective_size:,}" for each in versions))
    for what, scores in (("normal images", new.normal), ("labelled anomalies", new.anomalies)):
        if scores:
            table.add_row(
                f"flagged of {len(scores):,} new {what}", *(_flagged(scores, each.threshold) for each in versions)
            )
    out.print(table)
    out.print("")
    for line in _effect(new, recalibrated):
        out.print(escape(line), soft_wrap=True)
    back = command_line("activate", before.name, before.version, store=store)
    out.print(f"\n[cyan]{'bundle':<8}[/]{escape(str(recalibrated.directory))}", soft_wrap=True)
    out.print(f"[cyan]{'undo':<8}[/]{escape(back)}", soft_wrap=True)


def _flagged(scores: Sequence[float], threshold: float) -> str:
    share = anomaly_rate(scores, threshold)
    return f"{round(share * len(scores)):,} ({share:.2%})"


def _effect(new: "NewImages", recalibrated: "Recalibrated") -> list[str]:
    """What to expect from the new threshold, and what to take care of; one sentence per line."""
    before, after = recalibrated.before, recalibrated.after
    flagged = after.recalibration.flagged if after.recalibration else 0.0
    comparison = "more than" if flagged > before.false_alarm_rate else "within"
    lines = [
        f"expected effect: at the old threshold, {flagged:.2%} of the new images are anomalies, {comparison} the "
        f"guaranteed {before.false_alarm_rate:.2%}; the new threshold guarantees at most {after.false_alarm_rate:.2%}."
    ]
    if after.threshold > before.threshold:
        lines.append("the threshold is higher: fewer real anomalies will be detected, too.")
    if after.threshold < before.threshold:
        lines.append("the threshold is lower: more real anomalies will be detected, too.")
    if before.evaluation is not None:
        lines.append("rates on test images at the old threshold are not carried over.")
    if after.recalibration and (pairs := sum((after.recalibration.data.near_duplicates or {}).values())):
        lines.append(f"{pairs:,} pairs of the new images look alike; the guarantee assumes independent images.")
    if new.caveat:
        lines.append(
            "the guarantee holds only if all images or a random sample were labelled, not only flagged images."
        )
    return lines
