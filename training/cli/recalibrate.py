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
from training.cli.interrupts import exit_on_interrupt
from training.cli.key_files import signing_key
from training.cli.options import groups_rule, rate
from training.cli.parser import command, console, one_of
from training.cli.store_parser import StoreParser
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.recalibration import NewImages, Recalibrated

_SHOWN = 10


def run(arguments: list[str]) -> None:
    """Scores new normal images, publishes a version with the threshold that they give, shows old and new.

    Raises:
        TrainingError, InferenceError: it cannot be done; the text says what would help.
    """
    options = _parser().read(arguments)
    if (options.images is None) is (options.feedback is None):
        raise TrainingError("say where the normal images come from: either --images FOLDER or --feedback FILE")
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


def _parser() -> StoreParser:
    parser = StoreParser(
        "recalibrate",
        ["NAME"],
        "Publishes a new version with the weights of the current one and a threshold from\n"
        "new images of what is normal: after a new camera, other light, a changed\n"
        "product. They must be images that the weights were not fitted on. Instead of\n"
        "--images, --feedback takes the scores of images that operators labelled.",
        "--images FOLDER",
    )
    parser.how.add_argument(
        "--images",
        metavar="FOLDER",
        type=Path,
        help="normal images, or a folder for training, of which normal/ is taken",
    )
    parser.how.add_argument(
        "--feedback", metavar="FILE", type=Path, help="labels that operators gave the service (ANOMALY_FEEDBACK_PATH)"
    )
    parser.how.add_argument(
        "--groups", metavar="RULE", type=groups_rule, default="folder", help="what is one thing, as in training"
    )
    parser.how.add_argument(
        "--false-alarm-rate", metavar="RATE", type=rate, help="what to promise (default: what the current version does)"
    )
    parser.how.add_argument(
        "--guarantee",
        type=one_of("guarantee", ["marginal", "strict"]),
        help="how to promise it, marginal or strict (default: as the current version does)",
    )
    parser.how.add_argument(
        "--sign-key",
        metavar="FILE",
        type=signing_key,
        help="sign the new version with this private key; the current one must be signed with it or a trusted one",
    )
    parser.add_trusted_keys()
    return parser


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
    back = command("activate", before.name, before.version, store=store)
    out.print(f"\n[cyan]{'bundle':<8}[/]{escape(str(done.directory))}", soft_wrap=True)
    out.print(f"[cyan]{'undo':<8}[/]{escape(back)}", soft_wrap=True)


def _flagged(scores: Sequence[float], threshold: float) -> str:
    count = sum(score > threshold for score in scores)
    return f"{count:,} ({count / len(scores):.2%})"


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
