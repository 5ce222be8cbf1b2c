"""The options of a training run, each with its default, and the run that they describe."""

import argparse
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from app.inference.bundles.manifest import NAME_PATTERN
from app.inference.images.model_input import SIDES
from training.cli.key_files import signing_key
from training.cli.parser import DEFAULT_STORE, PROGRAM, Parser, add_help, one_of
from training.data.datasets import BUILT_IN, Source
from training.model.recipes import DEFAULT, RECIPES
from training.model.scoring_rules import DEFAULT_SCORING_RULE, SCORING_RULES

if TYPE_CHECKING:
    from training.pipeline import Run

_USAGE: Final = """%(prog)s [--data SOURCE] [--name NAME] [options]
       %(prog)s COMMAND …"""

_DESCRIPTION: Final = """\
Learns from normal images what is normal, calibrates a threshold with a
guaranteed false-alarm rate, and publishes the model. A running service loads it
automatically.

examples:
  python -m training --data digits             seconds, without download
  python -m training --data mnist --normal 5   the shipped model: fives
  python -m training --data parts              your own images
  python -m training --data parts --recipe linear --score local-relative
                                               textured surfaces
  python -m training --recipe tutorial         the classic, 784-512-256-128

a folder of images, of any size and format, grey or colour:
  parts/normal/              to learn from; a sub-folder is a group, never split
  parts/test/normal/         optional, to evaluate on
  parts/test/anomaly/KIND/   optional, by kind of anomaly"""


def run_of(options: argparse.Namespace) -> "Run":
    """The run that parsed options describe."""
    from training.pipeline import Run  # noqa: PLC0415  takes seconds, which help and usage errors need not wait

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
        rule=SCORING_RULES[options.score],
        store=options.store,
        false_alarm_rate=options.false_alarm_rate,
        guarantee=options.guarantee,
        seed=options.seed,
        device=options.device,
        threads=options.threads,
        sign_key=options.sign_key,
    )


def training_parser(run: Callable[[argparse.Namespace], None]) -> Parser:
    """The parser of a training run; commands can be added to it.

    Args:
        run: called with the options where no command is given.
    """
    parser = Parser(prog=PROGRAM, usage=_USAGE, description=_DESCRIPTION)
    parser.set_defaults(run=run)
    what = parser.add_argument_group("what to learn")
    what.add_argument("--data", metavar="SOURCE", default="mnist", help=f"{', '.join(BUILT_IN)}, or a folder")
    what.add_argument(
        "--normal", metavar="LABELS", type=_labels, default="5", help="label, or comma list, that is normal"
    )
    what.add_argument(
        "--data-dir",
        metavar="FOLDER",
        type=Path,
        default=Path("data"),
        help="where downloaded sets and decoded images are kept",
    )
    what.add_argument(
        "--size", type=_size, help="what folders' images are brought to, SIDE or HEIGHTxWIDTH (default: the recipe's)"
    )
    what.add_argument(
        "--mode", type=one_of("mode", ["auto", "L", "RGB"]), default="auto", help="L (grey) or RGB, for folders"
    )
    what.add_argument(
        "--groups",
        metavar="RULE",
        type=groups_rule,
        default="folder",
        help="images of one thing, which no split tears apart, share a folder of normal/, a match of a regular "
        "expression in their path, or nothing (none)",
    )
    where = parser.add_argument_group("where it goes")
    where.add_argument("--name", type=_name, help="the model's name (default: SOURCE-LABELS, as mnist-5)")
    where.add_argument("--store", metavar="FOLDER", type=Path, default=DEFAULT_STORE, help="folder of the model store")
    where.add_argument(
        "--sign-key",
        metavar="FILE",
        type=signing_key,
        help="private key to sign the version with (default: it is not signed)",
    )
    promise = parser.add_argument_group("what to promise")
    promise.add_argument(
        "--false-alarm-rate",
        metavar="RATE",
        type=rate,
        default=0.01,
        help="share of normal images that may alarm; 0.01 takes at least 132 normal images, 0.05 takes 26",
    )
    promise.add_argument(
        "--guarantee",
        type=one_of("guarantee", ["marginal", "strict"]),
        default="marginal",
        help="marginal: the rate holds on average over calibration draws; strict: with 95 %% confidence over them",
    )
    promise.add_argument(
        "--score",
        metavar="RULE",
        type=one_of("scoring rule", SCORING_RULES),
        default=DEFAULT_SCORING_RULE,
        help=f"the error that decides: {', '.join(SCORING_RULES)}; docs/scoring.md says when to use which",
    )
    how = parser.add_argument_group("how to learn")
    how.add_argument(
        "--recipe",
        type=one_of("recipe", RECIPES),
        default=DEFAULT.name,
        help="settings that belong together; default: for small images; conv: for larger and coloured ones; "
        "linear: for textured surfaces, solved at once; tutorial: the classic",
    )
    how.add_argument("--epochs", metavar="N", type=_positive(int), help=_of_recipe("passes over the data", "epochs"))
    how.add_argument("--batch-size", metavar="N", type=_positive(int), help=_of_recipe("images per step", "batch_size"))
    how.add_argument(
        "--learning-rate",
        metavar="RATE",
        type=_positive(float),
        help=_of_recipe("largest step size", "learning_rate"),
    )
    how.add_argument("--seed", type=_seed, default=1337, help="of split, weights, shuffling and corruption")
    how.add_argument("--device", type=_device, default="auto", help="cpu, cuda, mps, or the best there is")
    how.add_argument(
        "--threads", metavar="N", type=_positive(int), default=1, help="CPU threads; more seldom help small networks"
    )
    add_help(how)
    return parser


def _of_recipe(text: str, knob: str) -> str:
    values = ", ".join(f"{name} {getattr(recipe, knob):g}" for name, recipe in RECIPES.items())
    return f"{text} (default: the recipe's: {values})"


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


def groups_rule(text: str) -> str:
    """An argparse type: what images of one thing have in common."""
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


def rate(text: str) -> float:
    """An argparse type: a false-alarm rate."""
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
