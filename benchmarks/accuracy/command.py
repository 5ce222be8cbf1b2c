"""The command line of the accuracy benchmark.

    python -m benchmarks.accuracy mnist  --data-dir data      all ten digits × 3 seeds, compared with published figures
    python -m benchmarks.accuracy folder my-parts             every scoring rule and kind of anomaly × 3 splits
    python -m benchmarks.accuracy sizes  --data-dir data      the shipped model with enlarged digits
    python -m benchmarks.accuracy places part my-parts/normal the map of a published model, with synthetic defects

One recipe is used for everything, and no choice depends on test labels.
"""

import argparse
import ast
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console

from app.inference.images.model_input import Fit
from benchmarks.accuracy import folder, mnist, places, sizes
from benchmarks.errors import exit_status
from training.model.recipes import DEFAULT, FEATURES, RECIPES, Recipe

_WIDTH = 170


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a benchmark and prints its tables; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    return exit_status(lambda: options.run(options, Console(width=_WIDTH, highlight=False)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    kinds = parser.add_subparsers(required=True)
    _add_mnist(kinds.add_parser("mnist", formatter_class=parser.formatter_class, help="ten digits, several seeds"))
    _add_folder(kinds.add_parser("folder", formatter_class=parser.formatter_class, help="an image folder"))
    for each in kinds.choices.values():
        each.add_argument("--seeds", type=int, default=3, help="number of splits, each with its own model")
        each.add_argument("--device", default="auto", help="of pixel recipes: auto, cpu, cuda, …")
    enlarged = kinds.add_parser(
        "sizes", formatter_class=parser.formatter_class, help="the shipped model, enlarged digits"
    )
    enlarged.set_defaults(run=sizes.run)
    _add_places(kinds.add_parser("places", formatter_class=parser.formatter_class, help="where synthetic defects are"))
    for each in kinds.choices.values():
        each.add_argument("--data-dir", type=Path, default=Path("data"), help="of MNIST, and cache of decoded images")
        each.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


def _add_mnist(parser: argparse.ArgumentParser) -> None:
    pixel_recipes = [recipe.name for recipe in RECIPES.values() if not recipe.backbone]
    parser.add_argument("--recipe", choices=pixel_recipes, default=DEFAULT.name, help="recipe for all digits")
    parser.add_argument("--first-seed", type=int, default=100, help="seeds from 100 on did not influence the recipe")
    parser.add_argument("--digits", default="0,1,2,3,4,5,6,7,8,9", help="digits, separated by commas")
    parser.add_argument(
        "--set",
        type=_hyperparameter,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a hyperparameter of the recipe, for example jitter=0",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="number of networks fitted at the same time"
    )
    parser.set_defaults(run=mnist.run)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="normal images and labelled test images, in a layout that training reads")
    parser.add_argument("--recipes", type=_recipes, default="linear,conv", help="recipes, separated by commas")
    parser.add_argument(
        "--size",
        type=lambda side: (int(side), int(side)),
        help="side of the model's input in pixels; None: the recipe's",
    )
    parser.add_argument("--fit", choices=get_args(Fit), default="stretch", help="of images of other proportions")
    parser.add_argument("--groups", default="folder", help="folder, none or a regular expression")
    parser.add_argument("--seed", type=int, default=0, dest="first_seed", help="of the first split and its model")
    parser.add_argument("--backbone", default=FEATURES.backbone, help="pretrained network of the recipe features")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="its weights (None: its own)")
    parser.set_defaults(run=folder.run)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="name of a published model")
    parser.add_argument("folder", type=Path, help="normal images that it was not trained on")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="where the model is")
    parser.add_argument("--every", type=int, default=1, help="take every n-th image of the folder")
    parser.set_defaults(run=places.run)


def _hyperparameter(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    if name not in {field.name for field in dataclasses.fields(Recipe)}:
        raise argparse.ArgumentTypeError(f"unknown hyperparameter {name!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _recipes(text: str) -> list[Recipe]:
    unknown = [name for name in text.split(",") if name not in RECIPES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown recipe {', '.join(unknown)}; choose from {', '.join(RECIPES)}")
    return [RECIPES[name] for name in text.split(",")]
