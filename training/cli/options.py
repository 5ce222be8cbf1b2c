"""The options of a training run, and the ``Run`` made from them."""

import argparse
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from app.command_line import Parser, add_help
from app.inference.images.model_input import Fit
from app.inference.machine import usable_cores
from training.cli import argument_types
from training.cli.key_files import signing_key
from training.cli.parser import DEFAULT_STORE, PROGRAM, one_of
from training.data.datasets import BUILT_IN, Source
from training.data.splitting import CROSS_BELOW, CalibrationPlan
from training.data.suitability import MIN_FIT
from training.errors import TrainingError
from training.model.recipes import DEFAULT, FEATURES, RECIPES, Recipe
from training.model.scoring_rules import DEFAULT_SCORING_RULE, FEATURE_RULE, SCORING_RULES, ScoringRule

if TYPE_CHECKING:
    from training.run import Run

AUTO: Final = "auto"
_HYPERPARAMETERS: Final = ("epochs", "batch_size", "learning_rate")

_USAGE: Final = """%(prog)s [--data SOURCE] [--name NAME] [options]
       %(prog)s COMMAND …"""

_DESCRIPTION: Final = """\
Trains a model on normal images, sets a threshold with a guaranteed false-alarm
rate, and publishes the model. A running service loads it automatically.

examples:
  python -m training --data digits             seconds, no download
  python -m training --data mnist --normal 5   the shipped model: fives
  python -m training --data parts              a folder of images
  python -m training --recipe tutorial         the classic, 784-512-256-128

a folder of images of any size and format, grey or colour:
  parts/normal/              for training; a sub-folder is a group
  parts/test/normal/         optional, for evaluation
  parts/test/anomaly/KIND/   optional, for evaluation, by kind of anomaly

other layouts are read as they are: train/good/ with test/good/ and test/KIND/;
train/normal/ with train/anomaly/; a folder with normal images only; lists of
labelled images (Ground Truth, Lookout for Vision: FILE.manifest, FILE.jsonl)"""


def run_of(options: argparse.Namespace) -> "Run":
    """The run that the parsed options describe."""
    from training.run import Run  # noqa: PLC0415  takes seconds; imported here so that help and usage errors are fast

    name = options.recipe or _default_recipe(options)
    if name == AUTO:
        _refuse_options_of_one_recipe(options)
    recipe = FEATURES if name == AUTO else RECIPES[name]
    changes = {name: getattr(options, name) for name in _HYPERPARAMETERS}
    if recipe.backbone:
        changes["backbone"] = options.backbone
    recipe = dataclasses.replace(recipe, **{name: value for name, value in changes.items() if value is not None})
    return Run(
        source=Source(
            data=options.data,
            normal=options.normal,
            data_dir=options.data_dir,
            size=options.size,
            mode=options.mode,
            groups=options.groups,
            fit=options.fit,
            exclude=options.exclude,
            levels=options.levels,
            background=options.background,
            mask=options.mask,
            roi=options.roi,
        ),
        name=options.name or _default_name(options.data, options.normal),
        recipe=recipe,
        rule=_rule(recipe, options.score),
        store=options.store,
        false_alarm_rate=options.false_alarm_rate,
        guarantee=options.guarantee,
        seed=options.seed,
        device=options.device,
        threads=options.threads or (usable_cores() if recipe.backbone else 1),
        calibration=options.calibration,
        choose=name == AUTO,
        weights=options.weights,
        sign_key=options.sign_key,
        force=options.force,
    )


def _default_recipe(options: argparse.Namespace) -> str:
    """What tells defects best, for a folder; but options that belong to pixel recipes ask for one."""
    for_pixels = options.score or any(getattr(options, name) for name in _HYPERPARAMETERS)
    return DEFAULT.name if options.data in BUILT_IN or for_pixels else AUTO


def training_parser(run: Callable[[argparse.Namespace], None]) -> Parser:
    """The parser of a training run; commands can be added to it.

    Args:
        run: called with the options if no command is given.
    """
    parser = Parser(prog=PROGRAM, usage=_USAGE, description=_DESCRIPTION)
    parser.set_defaults(run=run)
    data = parser.add_argument_group("training data")
    data.add_argument(
        "--data",
        metavar="SOURCE",
        default="mnist",
        help=f"{', '.join(BUILT_IN)}, a folder, or a list of labelled images",
    )
    data.add_argument(
        "--normal",
        metavar="LABELS",
        type=argument_types.labels,
        default="5",
        help="the labels that are normal, separated by commas",
    )
    data.add_argument(
        "--data-dir",
        metavar="FOLDER",
        type=Path,
        default=Path("data"),
        help="folder for downloaded sets and decoded images",
    )
    add_exclude(data, relative_to="--data")
    data.add_argument(
        "--size",
        type=argument_types.size,
        help="for folders: size of the model's input, SIDE or HEIGHTxWIDTH (default: the recipe's)",
    )
    data.add_argument(
        "--fit",
        type=one_of("fit", get_args(Fit)),
        default="stretch",
        help="for folders: how images of other proportions are used. stretch: distorted, all in the same way if they "
        "have the same proportions; pad: undistorted, smaller, and surrounded by their own reflection; crop: "
        "undistorted, but defects outside the middle are not seen",
    )
    data.add_argument(
        "--levels",
        metavar="RULE",
        type=argument_types.levels,
        default="auto",
        help="for folders, images of more than 8 bits: which values become black and white. auto: 0 and the highest of "
        "the fewest bits (8, 10, 12, 14 or 16) that hold all values; full: the range of their type; LOW:HIGH: these",
    )
    data.add_argument(
        "--background",
        metavar="COLOUR",
        type=argument_types.colour,
        default="black",
        help="for folders: the colour behind transparent images, black, white, another name or #rrggbb",
    )
    data.add_argument(
        "--mode",
        type=one_of("mode", ["auto", "L", "RGB"]),
        default="auto",
        help="for folders: colour mode of the model's input, L (grey), RGB or auto",
    )
    data.add_argument(
        "--groups",
        metavar="RULE",
        type=argument_types.groups_rule,
        default="folder",
        help="which images show the same object, so that no split separates them and the guarantee counts objects: "
        "those of one sub-folder (folder), those with the same match of a regular expression in their path, or none",
    )
    interest = data.add_mutually_exclusive_group()
    interest.add_argument(
        "--mask",
        metavar="FILE",
        type=Path,
        help="for folders: an image of any size in which the region of interest is white; what is black does not count "
        "for the score, in training and in serving (default: everything counts)",
    )
    interest.add_argument(
        "--roi",
        metavar="X,Y,W,H",
        type=argument_types.rectangle,
        help="for folders: the region of interest as a rectangle, in pixels of the images as a viewer shows them or, "
        "for images of several sizes, in percent: 10%%,10%%,80%%,80%% (default: everything counts)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--name", type=argument_types.name, help="name of the model (default: SOURCE-LABELS, for example mnist-5)"
    )
    output.add_argument("--store", metavar="FOLDER", type=Path, default=DEFAULT_STORE, help="folder of the model store")
    output.add_argument(
        "--sign-key",
        metavar="FILE",
        type=signing_key,
        help="private key to sign the version with (default: no signature)",
    )
    decision = parser.add_argument_group("score and threshold")
    decision.add_argument(
        "--false-alarm-rate",
        metavar="RATE",
        type=argument_types.rate,
        default=0.01,
        help="guaranteed share of false alarms; 0.01 needs at least 99 normal images, or groups, 0.05 needs "
        f"{MIN_FIT}; with --calibration split, 132 and 39",
    )
    decision.add_argument(
        "--guarantee",
        type=one_of("guarantee", ["marginal", "strict"]),
        default="marginal",
        help="marginal: the rate holds on average over draws of the calibration images; strict: with 95 %% confidence",
    )
    decision.add_argument(
        "--calibration",
        metavar="PLAN",
        type=one_of("calibration", get_args(CalibrationPlan)),
        default="auto",
        help="split: a fifth of the normal images is held back for the threshold; cross: all images are trained on and "
        "set the threshold, each scored by a model that was fitted without it; auto: cross below "
        f"{CROSS_BELOW} images or groups, unless the guarantee is strict",
    )
    decision.add_argument(
        "--score",
        metavar="RULE",
        type=one_of("scoring rule", SCORING_RULES),
        help=f"scoring rule: {', '.join(SCORING_RULES)}; docs/scoring.md says when to use which "
        f"(default: {DEFAULT_SCORING_RULE}; the recipe features has its own)",
    )
    fitting = parser.add_argument_group("training")
    fitting.add_argument(
        "--recipe",
        type=one_of("recipe", [AUTO, *RECIPES]),
        help="hyperparameters: auto (what tells synthetic defects best from your normal images), default (small "
        "images), features (photographs of surfaces and parts; a pretrained network), conv (larger images and colour "
        "images), linear (solved in closed form), tutorial (the classic) "
        f"(default: {AUTO} for folders, {DEFAULT.name} for other data or with options of its own)",
    )
    fitting.add_argument(
        "--backbone",
        metavar="NAME",
        help="pretrained network of the recipe features: efficientnet_lite0, 1 or 2 (no download), or a name of "
        "timm's or torchvision's (default: efficientnet_lite0)",
    )
    fitting.add_argument(
        "--weights", metavar="FILE", type=Path, help="its weights, safetensors or a PyTorch file (default: its own)"
    )
    fitting.add_argument(
        "--epochs", metavar="N", type=argument_types.positive(int), help=_of_recipe("passes over the images", "epochs")
    )
    fitting.add_argument(
        "--batch-size", metavar="N", type=argument_types.positive(int), help=_of_recipe("images per step", "batch_size")
    )
    fitting.add_argument(
        "--learning-rate",
        metavar="RATE",
        type=argument_types.positive(float),
        help=_of_recipe("maximum learning rate", "learning_rate"),
    )
    fitting.add_argument(
        "--seed", type=argument_types.seed, default=1337, help="of the split, the weights, the shuffling and the noise"
    )
    fitting.add_argument(
        "--device", type=argument_types.device, default="auto", help="cpu, cuda, mps, or auto: the fastest available"
    )
    fitting.add_argument(
        "--threads",
        metavar="N",
        type=argument_types.positive(int),
        help="CPU threads (default: one per core for a pretrained network, else 1)",
    )
    add_force(fitting)
    add_help(fitting)
    return parser


def add_exclude(group: argparse._ActionsContainer, *, relative_to: str) -> None:
    """Adds ``--exclude``."""
    group.add_argument(
        "--exclude",
        metavar="FILE",
        type=Path,
        help=f"a list of images to leave out, such as defects among the normal images: one path per line, relative to "
        f"{relative_to}; # begins a comment (default: none)",
    )


def add_guarantee_of_current(group: argparse._ActionsContainer) -> None:
    """Adds ``--groups``, and ``--false-alarm-rate`` and ``--guarantee``, which are those of the current version."""
    group.add_argument(
        "--groups",
        metavar="RULE",
        type=argument_types.groups_rule,
        default="folder",
        help="what forms a group, as in training",
    )
    group.add_argument(
        "--false-alarm-rate",
        metavar="RATE",
        type=argument_types.rate,
        help="guaranteed rate (default: that of the current version)",
    )
    group.add_argument(
        "--guarantee",
        type=one_of("guarantee", ["marginal", "strict"]),
        help="marginal or strict (default: that of the current version)",
    )


def add_force(group: argparse._ActionsContainer) -> None:
    """Adds ``--force``."""
    group.add_argument(
        "--force",
        action="store_true",
        help=f"publish a version even if fewer than {MIN_FIT} different normal images can be fitted on, or most are "
        "copies or of one colour; its card says so (default: refuse)",
    )


def _of_recipe(text: str, hyperparameter: str) -> str:
    values = ", ".join(f"{name} {getattr(recipe, hyperparameter):g}" for name, recipe in RECIPES.items())
    return f"{text} (default: the recipe's: {values})"


def _refuse_options_of_one_recipe(options: argparse.Namespace) -> None:
    """Where recipes are tried, these would have no effect on most of them.

    Raises:
        TrainingError: there is such an option.
    """
    for name in (*_HYPERPARAMETERS, "score"):
        if getattr(options, name) is not None:
            raise TrainingError(f"--{name.replace('_', '-')} needs a recipe: choose one with --recipe, or leave it out")


def _rule(recipe: Recipe, score: str | None) -> ScoringRule:
    """The scoring rule of a run.

    Raises:
        TrainingError: the recipe has a score of its own.
    """
    if not recipe.backbone:
        return SCORING_RULES[score or DEFAULT_SCORING_RULE]
    if score is not None:
        raise TrainingError("recipes over a pretrained network have a score of their own: leave --score out")
    return FEATURE_RULE


def _default_name(data: str, normal: tuple[int, ...]) -> str:
    if data in BUILT_IN:
        return f"{data}-{'-'.join(map(str, normal))}"
    path = Path(data).resolve()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem if path.is_file() else path.name).strip("-._") or "model"
