"""``python -m training retrain NAME --data FOLDER --feedback FILE --images FOLDER``: fits a model again with labels."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from app.inference.bundles.store import ModelStore
from training.cli.argument_types import positive, seed
from training.cli.interrupts import exit_on_interrupt
from training.cli.key_files import signing_key
from training.cli.options import add_exclude, add_force, add_guarantee_of_current
from training.cli.parser import add_store_command, command_line, console, print_first
from training.data.datasets import Source
from training.data.folders import NORMAL

if TYPE_CHECKING:
    from app.command_line import Commands
    from app.inference.bundles.manifest import Manifest
    from training.retraining import Comparison, LabelledImages
    from training.run import Run


def add_to(commands: "Commands") -> None:
    """Adds the command."""
    add_store_command(
        commands,
        "retrain",
        ["NAME"],
        summary="train again with images that operators labelled",
        description="Trains the current version's recipe again on its data set and on the images that\n"
        "operators labelled normal, and stores a new version. A quarter of these images,\n"
        "and those labelled anomalies, are only evaluated on. Both versions are compared on\n"
        "images that neither was trained on. The old version is served until the new one\n"
        "is activated.",
        run=run,
        add_options=_add_options,
        required_options=["--data SOURCE", "--feedback FILE", "--images FOLDER"],
    )


def _add_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--data", metavar="SOURCE", required=True, help="the folder, or list of images, that the model was trained on")
    add("--feedback", metavar="FILE", type=Path, required=True, help="operators' labels, as written by the service")
    add(
        "--images", metavar="FOLDER", type=Path, required=True, help="their images, as stored by the service "
        "(ANOMALY_FEEDBACK_IMAGES)",
    )  # fmt: skip
    add("--activate", action="store_true", help="serve the new version at once (default: only store it)")
    add("--data-dir", metavar="FOLDER", type=Path, default=Path("data"), help="folder for decoded images")
    add_exclude(group, relative_to="--data")
    add_guarantee_of_current(group)
    add("--weights", metavar="FILE", type=Path, help="weights of the pretrained network, as in training")
    add("--seed", type=seed, help="as in training (default: that of the current version)")
    add("--threads", metavar="N", type=positive(int), help="CPU threads, as in training")
    add("--sign-key", metavar="FILE", type=signing_key, help="sign the new version with this private key")
    add_force(group)


def run(options: argparse.Namespace) -> None:
    """Trains and stores a version, and compares it with the current one.

    Raises:
        TrainingError, InferenceError: it failed; the text gives the reason.
    """
    with exit_on_interrupt():
        from training.cli.progress import Display  # noqa: PLC0415
        from training.pipeline import train  # noqa: PLC0415
        from training.retraining import compare, labelled_images  # noqa: PLC0415
    store, out = ModelStore(options.store), console()
    before = store.load(options.name, store.current(options.name))
    images = labelled_images(options.name, options.feedback, options.images)
    _show_labels(out, images)
    settings = _run_of(options, before.manifest, images)
    with Display(settings, out) as display:
        published = train(settings, display)
        display.result(published, before.manifest.version if options.activate else None)
    after = store.load(options.name, published.manifest.version)
    out.print("")
    out.print(_table(compare(before, after, settings.source), before.manifest.version, published.manifest.version))
    if not options.activate:
        command = command_line("activate", options.name, published.manifest.version, store=options.store)
        out.print(f"\n{before.manifest.version} is still served; to serve the new version:\n{command}", soft_wrap=True)


def _run_of(options: argparse.Namespace, manifest: "Manifest", images: "LabelledImages") -> "Run":
    """The run of the current version, with the options that the user gave."""
    from training.retraining import run_like  # noqa: PLC0415

    source = Source(data=options.data, data_dir=options.data_dir, groups=options.groups, exclude=options.exclude)
    names = ("false_alarm_rate", "guarantee", "seed", "threads", "weights", "sign_key", "force", "activate")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return replace(run_like(manifest, source, images, options.store), **given)


def _show_labels(out: Console, images: "LabelledImages") -> None:
    normal = sum(file.kind == NORMAL for file in images.held_out)
    out.print(
        f"labelled images: {len(images.normal):,} normal ones to train on; held out: {normal:,} normal, "
        f"{len(images.held_out) - normal:,} anomalies",
        soft_wrap=True,
    )
    skipped = [
        f"{count:,} {what}"
        for count, what in (
            (images.missing, "labels whose image is not stored"),
            (images.unreadable, "lines that are not valid labels"),
        )
        if count
    ]
    print_first(out, "skipped", skipped)


def _table(rows: Sequence["Comparison"], before: str, after: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False)
    table.add_column("called anomalies, of images that\nneither version was trained on")
    table.add_column("images", justify="right", vertical="bottom")
    for age, version in (("old", before), ("new", after)):
        table.add_column(f"{age}\n{version}", justify="right", overflow="fold")
    for row in rows:
        table.add_row(
            row.what, f"{row.images:,}", *(_share(flagged, row.images) for flagged in (row.before, row.after))
        )
    return table


def _share(flagged: int, count: int) -> str:
    return f"{flagged:,} ({flagged / count:.1%})"
