"""The command line: ``python -m training --data mnist --normal 5 --name mnist-5``."""

import argparse
import dataclasses
import re
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.inference.errors import InferenceError
from app.inference.images import SIDES
from app.inference.manifest import NAME_PATTERN, Manifest
from training.datasets import BUILT_IN, Source
from training.errors import TrainingError
from training.fitting import Epoch
from training.pipeline import Prepared, Published, Run, train
from training.recipes import DEFAULT, RECIPES
from training.report import evaluation_rows
from training.scoring import DEFAULT_RULE, RULES

_SHOWN = 10


def main(arguments: list[str] | None = None) -> int:
    """Parses, trains, prints; returns the exit status: 0, or 1 with one line on standard error."""
    run = _parse(arguments)
    console = Console(highlight=False, soft_wrap=True)
    try:
        published = train(
            run,
            on_data=lambda prepared: _print_data(console, run, prepared),
            on_epoch=lambda epoch: _print_epoch(console, run, epoch),
        )
    except (TrainingError, InferenceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was published", file=sys.stderr)
        return 130
    _print_closing(console, published)
    return 0


def _parse(arguments: list[str] | None) -> Run:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Learns what is normal, calibrates a threshold with a guaranteed false-alarm rate, and publishes "
        "the model into the store.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    what = parser.add_argument_group("what to learn")
    what.add_argument("--data", default="mnist", help=f"{', '.join(BUILT_IN)}, or a folder with normal/ and test/")
    what.add_argument("--normal", type=_labels, default="5", help="label, or comma list, that is normal")
    what.add_argument("--data-dir", type=Path, default=Path("data"), help="where downloaded sets are kept")
    what.add_argument("--size", type=_size, help="input size for folders, SIDE or HEIGHTxWIDTH (default: the recipe's)")
    what.add_argument("--mode", choices=["auto", "L", "RGB"], default="auto", help="grey or colour, for folders")
    what.add_argument(
        "--groups",
        type=_groups,
        default="folder",
        help="pictures of one thing, which no split tears apart, share a folder of normal/, a match of a REGEX in "
        "their path, or nothing (none)",
    )
    where = parser.add_argument_group("where it goes")
    where.add_argument("--name", type=_name, help="the model's name (default: DATA-NORMAL, as mnist-5)")
    where.add_argument("--store", type=Path, default=Path("model_store"), help="folder of the model store")
    how = parser.add_argument_group("how to learn")
    how.add_argument("--recipe", choices=RECIPES, default=DEFAULT.name, help="settings that belong together")
    how.add_argument("--epochs", type=_positive(int), help="passes over the data (default: the recipe's)")
    how.add_argument("--batch-size", type=_positive(int), help="pictures per step (default: the recipe's)")
    how.add_argument("--learning-rate", type=_positive(float), help="peak step size (default: the recipe's)")
    how.add_argument("--score", choices=RULES, default=DEFAULT_RULE, help="the error that decides, see docs/scoring.md")
    how.add_argument("--false-alarm-rate", type=_rate, default=0.01, help="share of normal pictures that may alarm")
    how.add_argument(
        "--guarantee",
        choices=["marginal", "strict"],
        default="marginal",
        help="the rate holds on average over calibration draws, or with 95 %% confidence over them",
    )
    how.add_argument("--seed", type=_seed, default=1337, help="of split, weights, shuffling and corruption")
    how.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda, …")
    how.add_argument("--threads", type=_positive(int), default=1, help="CPU threads; more seldom help small nets")
    options = parser.parse_args(arguments)
    changes = {name: getattr(options, name) for name in ("epochs", "batch_size", "learning_rate")}
    recipe = dataclasses.replace(
        RECIPES[options.recipe], **{name: value for name, value in changes.items() if value is not None}
    )
    return Run(
        source=Source(
            data=options.data,
            normal=options.normal,
            data_dir=options.data_dir,
            size=options.size,
            mode=options.mode,
            groups=options.groups,
        ),
        name=options.name or _default_name(options.data, options.normal),
        recipe=recipe,
        rule=RULES[options.score],
        store=options.store,
        false_alarm_rate=options.false_alarm_rate,
        guarantee=options.guarantee,
        seed=options.seed,
        device=options.device,
        threads=options.threads,
    )


def _default_name(data: str, normal: tuple[int, ...]) -> str:
    if data in BUILT_IN:
        return f"{data}-{'-'.join(map(str, normal))}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(data).resolve().name).strip("-._") or "model"


def _labels(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no label or comma list of labels")
    return tuple(int(label) for label in text.split(","))


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is neither SIDE nor HEIGHTxWIDTH")
    height, width = int(match[1]), int(match[2] or match[1])
    if not (SIDES[0] <= height <= SIDES[1] and SIDES[0] <= width <= SIDES[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: sides must have from {SIDES[0]} to {SIDES[1]} pixels")
    return height, width


def _groups(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither folder, none nor a regular expression: {error}"
        ) from error
    return text


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r}: letters, digits, '.', '_' and '-', at most 64, no leading mark")
    return text


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie between 0 and 1")
    return value


def _seed(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at most 18 digits")
    return int(text)


def _device(text: str) -> str:
    try:
        return text if text == "auto" else str(torch.Generator(text).device)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not usable here: {str(error).splitlines()[0]}") from error


class _positive:  # noqa: N801  reads as a type in add_argument
    """An argparse type: a number above zero."""

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def __call__(self, text: str) -> float:
        try:
            value = self.kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
        return value


def _print_data(console: Console, run: Run, prepared: Prepared) -> None:
    data, parts, spec = prepared.data, prepared.parts, prepared.data.spec
    console.print(
        f"[bold]{run.name}[/]: {escape(data.source)}, normal = {data.normal_label}, "
        f"{spec.channels}×{spec.height}×{spec.width}, recipe {run.recipe.name}, score {run.rule.name}, "
        f"{prepared.device.type}"
    )
    groups = len(set(data.groups))
    shown = "" if groups == len(data.groups) else f" of {groups:,} things"
    console.print(
        f"{len(data.normal):,} normal pictures{shown}: {len(parts.fit):,} to fit, {len(parts.validation):,} to watch, "
        f"{len(parts.calibration):,} to calibrate; {len(data.test):,} to test"
    )
    _print_some(console, "skipped", [f"{path}: {reason}" for path, reason in data.unreadable])
    for where, pairs in (prepared.near_duplicates or {}).items():
        _print_some(console, f"look alike across {where}", [f"{one} ~ {other}" for one, other in pairs])


def _print_some(console: Console, what: str, lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        console.print(f"[yellow]{what}[/]", escape(line.encode(errors="replace").decode()))
    if len(lines) > _SHOWN:
        console.print(f"[yellow]{what}[/] {len(lines) - _SHOWN:,} more")


def _print_epoch(console: Console, run: Run, epoch: Epoch) -> None:
    validation = "" if epoch.validation_loss is None else f"  validation {epoch.validation_loss:.5f}"
    console.print(
        f"epoch {epoch.number:>3}/{run.recipe.epochs}  train {epoch.train_loss:.5f}{validation}  {epoch.seconds:.2f} s"
    )


def _print_closing(console: Console, published: Published) -> None:
    table = Table(title=f"{published.manifest.name} {published.manifest.version}", show_header=False)
    for row in _closing_rows(published.manifest):
        table.add_row(*row)
    console.print(table)
    console.print(f"bundle    {published.directory}\nreport    {published.directory / 'report' / 'index.html'}")


def _closing_rows(manifest: Manifest) -> list[tuple[str, str]]:
    return [
        ("threshold", f"{manifest.threshold:.6f}  ({manifest.scoring.rule}, n = {manifest.calibration.size:,})"),
        ("guaranteed false alarms", f"≤ {manifest.false_alarm_rate:.2%}  ({manifest.guarantee})"),
        *(evaluation_rows(manifest.evaluation) if manifest.evaluation else []),
    ]


if __name__ == "__main__":
    sys.exit(main())
