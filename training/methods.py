"""The method of each recipe."""

from pathlib import Path
from typing import Any

from app.inference.decisions.regions import Cells
from app.inference.images.model_input import InputSpec
from training.model.fitting import pick_device
from training.model.interest import as_tensor
from training.model.method import Method
from training.model.pixels import PixelMethod
from training.model.recipes import Recipe
from training.model.scoring_rules import ScoringRule


def method_of(
    recipe: Recipe,
    rule: ScoringRule,
    spec: InputSpec,
    *,
    seed: int,
    device: str = "auto",
    threads: int = 1,
    weights: Path | None = None,
    inside: Cells | None = None,
) -> Method[Any]:
    """The method of a recipe.

    Args:
        recipe: hyperparameters.
        rule: scoring rule; methods with a score of their own ignore it.
        spec: size and mode of the images.
        seed: of all random choices.
        device: where pixel recipes are fitted: ``auto``, ``cpu``, ``cuda``, …
        threads: number of images that a pretrained network works on at the same time.
        weights: file of the pretrained network's weights; None: its own.
        inside: (H, W) region of interest, at any size; None: all of the images counts.

    Raises:
        TrainingError: the weights of the pretrained network cannot be had.
    """
    size = spec.height, spec.width
    region = None if inside is None else as_tensor(inside, size)
    if recipe.backbone:
        from training.features.method import FeatureMethod  # noqa: PLC0415  timm takes seconds to import

        return FeatureMethod(recipe, size=size, seed=seed, threads=threads, weights=weights, inside=region)
    return PixelMethod(recipe, rule, seed, pick_device(device), region)
