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
from training.cli.options import groups_rule, rate
from training.cli.parser import StoreCommand, command_line, console, one_of
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.cli.parser import Commands
    from training.recalibration import NewImages, Recalibrated

_SHOWN = 10


def add_to(commands: "Commands") -> None:
    """Registers the command."""
    command = StoreCommand(
        commands,
        "recalibrate",
        ["NAME"],
        summary="a new threshold for the same weights",
        description="Publishes a new version with the weights of the current one and a threshold from\n"
        "new normal images: after a new camera, other light, a changed product. The\n"
        "weights must not have been fitted on them. Instead of --images, --feedback uses\n"
        "the scores of images that operators labelled.",
        run=run,
        more=["--images FOLDER"],
    )
    add = command.options.add_argument
    add(
        "--images",
        metavar="FOLDER",
        type=Path,
        help="normal images, or a training folder, of which normal/ is used",
    )
    add("--feedback", metavar="FILE", type=Path, help="operators' labels, as the service keeps them")
    add("--groups", metavar="RULE", type=groups_rule, default="folder", help="what forms a group, as in training")
    add("--false-alarm-rate", metavar="RATE", type=rate, help="guaranteed rate (default: that of the current version)")
    add(
        "--guarantee",
        type=one_of("guarantee", ["marginal", "strict"]),
        help="marginal or strict (default: that of the current version)",
    )
    add(
        "--sign-key",
        metavar="FILE",
        type=signing_key,
        help="sign the new version with this private key; the current one must be signed with it or a trusted one",
    )
    command.add_trusted_keys()


def run(options: argparse.Namespace) -> None:
    """Scores new normal images, publishes a version with the threshold that they give, shows old and new.

    Raises:
        TrainingError, InferenceError: it cannot be done; the text says what would help.
    """
    if (options.images is None) is (options.feedback is None):
        raise TrainingError("normal images are required: give either --images FOLDER or --feedback FILE")
    with exit_on_interrupt():
        from training.recalibration import from_images, from_labels, recalibrate  # noqa: PLC0415
    store = _store(options)
    bundle = store.load(options.name, store.current(options.name))
    new = (
        from_images(bundle, options.images, options.groups)
        if options.images
        else from_labels(store, bundle, options.feedback)
    )
    out = console()
    _show_unreadable(out, new.unreadable)
    done = recalibrate(
        store,
        bundle,
        new,
        false_alarm_rate=options.false_alarm_rate or bundle.manifest.false_alarm_rate,
        guarantee=options.guarantee or bundle.manifest.guarantee,
        key=options.sign_key,
    )
    _show(out, new, done, options.store)


def _store(options: argparse.Namespace) -> ModelStore:
    """Who signs vouches for the weights: then they must be vouched for already."""
    trusted: TrustedKeys | None = options.trusted_keys
    if options.sign_key is not None:
        own = options.sign_key.public
        trusted = trusted.with_key(own) if trusted else TrustedKeys([own])
    return ModelStore(options.store, trusted)


def _show_unreadable(out: Console, lines: Sequence[str]) -> None:
    for line in lines[:_SHOWN]:
        out.print(f"[yellow]skipped[/] {escape(line.encode(errors='replace').decode())}", soft_wrap=True)
    if len(lines) > _SHOWN:
        out.print(f"[yellow]skipped[/] {len(lines) - _SHOWN:,} more")


def _show(out: Console, new: "NewImages", done: "Recalibrated", store: Path) -> None:
    before, after = done.before, done.after
    out.print(f"[bold green]published[/] [bold]{after.name} {after.version}[/]\n", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False)
    table.add_column("")
    for word, each in (("old", before), ("new", after)):
        table.add_column(f"{word}\n{each.version}", justify="right", overflow="fold")
    versions = (before, after)
    table.add_row("threshold", *(f"{each.threshold:.6g}" for each in versions))
    table.add_row(
        "guaranteed false alarms", *(f"≤ {each.false_alarm_rate:.4g} ({each.guarantee})" for each in versions)
    )
    table.add_row("calibrated on", *(f"{each.calibration.size:,}" for each in versions))
    for what, scores in (("normal", new.normal), ("labelled anomalies", new.anomalies)):
        if scores:
            table.add_row(
                f"flagged of {len(scores):,} new {what}", *(_flagged(scores, each.threshold) for each in versions)
            )
    out.print(table)
    out.print("")
    for line in _effect(new, done):
        out.print(escape(line), soft_wrap=True)
    back = command_line("activate", before.name, before.version, store=store)
    out.print(f"\n[cyan]{'bundle':<8}[/]{escape(str(done.directory))}", soft_wrap=True)
    out.print(f"[cyan]{'undo':<8}[/]{escape(back)}", soft_wrap=True)


def _flagged(scores: Sequence[float], threshold: float) -> str:
    share = anomaly_rate(scores, threshold)
    return f"{round(share * len(scores)):,} ({share:.2%})"


def _effect(new: "NewImages", done: "Recalibrated") -> list[str]:
    """What to expect, in sentences."""
    before, after = done.before, done.after
    old = after.recalibration.flagged if after.recalibration else 0.0
    broken = "more than" if old > before.false_alarm_rate else "within"
    lines = [
        f"expected effect: of images like the new ones the old threshold calls {old:.2%} anomalies, {broken} the "
        f"{before.false_alarm_rate:.2%} that it promised; the new one promises at most {after.false_alarm_rate:.2%}."
    ]
    if after.threshold != before.threshold:
        more = "fewer" if after.threshold > before.threshold else "more"
        lines.append(
            f"the threshold is {'higher' if more == 'fewer' else 'lower'}: {more} anomalies will be found, too."
        )
    if before.evaluation is not None:
        lines.append("the rates that were measured on test images at the old threshold are not carried over.")
    if after.recalibration and (pairs := sum((after.recalibration.data.near_duplicates or {}).values())):
        lines.append(f"{pairs:,} pairs of the new images look alike: where they show one thing they count for less.")
    if new.caveat:
        lines.append(
            "the labels must be of every image or of a random sample: of flagged images alone they promise nothing."
        )
    return lines
