"""A trial: a pool is divided, a model is fitted and calibrated, and its scores of the test images are judged."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from app.inference.decisions.conformal import Calibration, calibrate
from benchmarks.accuracy.figures import Figures, judge
from benchmarks.accuracy.pool import Pool
from training.data.splitting import Partition, split
from training.model.method import Fitted, Method, Progress, R
from training.model.pixels import fitted
from training.model.recipes import Recipe
from training.model.scope import ScopedAutoencoder
from training.model.scoring_rules import FEATURE_RULE, SCORING_RULES


@dataclass(frozen=True)
class Division:
    """Positions of a pool's images in each part.

    Attributes:
        fit: the model is fitted on these.
        validation: only their loss is computed.
        calibration: they set the thresholds.
        test: normal images and anomalies.
        groups: the group of every image that is in one of the first three parts.
    """

    fit: list[int]
    validation: list[int]
    calibration: list[int]
    test: list[int]
    groups: dict[int, str]


@dataclass(frozen=True)
class Trial:
    """What one model achieves.

    Attributes:
        figures: by scoring rule; if the images come in groups, also with a threshold that counts images.
        seconds: how long the fit took.
    """

    figures: dict[str, Figures]
    seconds: float


def by_group(pool: Pool, recipe: Recipe, *, false_alarm_rate: float, seed: int) -> Division:
    """The test images as they are, and a seeded split of the other normal images by group.

    Raises:
        TrainingError: there are too few groups for the false-alarm rate.
    """
    positions, groups = pool.normal, pool.data.groups
    parts = split(groups, recipe, false_alarm_rate=false_alarm_rate, seed=seed)
    return _division(parts, positions, list(pool.test), groups)


def at_random(pool: Pool, recipe: Recipe, *, false_alarm_rate: float, seed: int) -> Division:
    """All normal images pooled and divided at random, whatever their groups; as many are for testing as before.

    Raises:
        TrainingError: there are too few images for the false-alarm rate.
    """
    normal = [*pool.normal, *pool.test_normal]
    random.Random(seed).shuffle(normal)  # noqa: S311  not a secret
    positions, held_out = normal[: len(pool.normal)], normal[len(pool.normal) :]
    groups = [str(position) for position in positions]
    parts = split(groups, recipe, false_alarm_rate=false_alarm_rate, seed=seed)
    return _division(parts, positions, held_out + pool.anomalies, groups)


def _division(parts: Partition, positions: Sequence[int], test: list[int], groups: Sequence[str]) -> Division:
    """The parts of a partition as positions in the pool."""
    fit, validation, calibration = (
        [positions[index] for index in part] for part in (parts.fit, parts.validation, parts.calibration)
    )
    return Division(fit, validation, calibration, test, dict(zip(positions, groups, strict=True)))


def run_trial(method: Method[R], images: R, kinds: Sequence[str], division: Division, *, seed: int) -> Trial:
    """Fits a model, calibrates it and judges it.

    Args:
        method: fits the model.
        images: the represented pool.
        kinds: ``normal`` or the kind of anomaly of each image of the pool.
        division: of the pool.
        seed: of the calibration.
    """
    began = time.perf_counter()
    groups = [division.groups[position] for position in division.fit]
    model = method.fit(images[division.fit], groups, images[division.validation], Progress())
    seconds = time.perf_counter() - began
    figures = {}
    for name, scores in _by_rule(model).items():
        of_calibration = scores(images[division.calibration]).tolist()
        calibrating = [division.groups[position] for position in division.calibration]
        calibration = calibrate(of_calibration, calibrating, "marginal", seed)
        of_test = scores(images[division.test]).double().numpy()
        test_kinds = [kinds[position] for position in division.test]
        figures[name] = judge(calibration, of_test, test_kinds)
        if calibration.groups is not None:
            # What most comparisons do. It promises nothing for images of further objects.
            figures[f"{name}, counting images"] = judge(Calibration(of_calibration), of_test, test_kinds)
    return Trial(figures, seconds)


def _by_rule(model: Fitted[Any]) -> dict[str, Callable[[Any], torch.Tensor]]:
    """The scores of a model: with every scoring rule, if it is an autoencoder, which is fitted only once."""
    if not isinstance(model.network, ScopedAutoencoder):
        return {FEATURE_RULE.name: model.scores}
    network = model.network.model.network
    return {name: fitted(network, rule, model.scope).scores for name, rule in SCORING_RULES.items()}
