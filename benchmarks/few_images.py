"""Few normal images: how often a model calls new normal images anomalies, calibrated by split and by cross.

    python -m benchmarks.few_images my-parts
    python -m benchmarks.few_images mnist --data-dir data

Each draw takes some of the normal images at random, as if there were no others, and trains with both calibrations. The
real false-alarm rate is that of the other normal images, or of a sample of them. Images of normal/ and of test/normal/
are drawn alike, so the guarantee applies to those that are left, and a rate that is too high is the fault of the
calibration.
"""

import argparse
import math
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final, Generic, Literal

import torch
from rich.console import Console
from rich.table import Table

from app.inference.decisions.conformal import anomaly_rate, calibrate
from benchmarks.accuracy.pool import Pool, read_pool
from benchmarks.errors import exit_status
from training.data.datasets import Source
from training.data.folders import NORMAL
from training.data.splitting import Partition, partition
from training.errors import TrainingError
from training.methods import method_of
from training.model.method import Fitted, Method, Progress, R
from training.model.recipes import DEFAULT, FEATURES, LINEAR, Recipe
from training.model.scoring_rules import DEFAULT_SCORING_RULE, SCORING_RULES

Plan = Literal["split", "cross"]

PLANS: Final[tuple[Plan, ...]] = ("split", "cross")

_RECIPES: Final = {recipe.name: recipe for recipe in (FEATURES, DEFAULT, LINEAR)}
_DIGIT: Final = 5
_SEED: Final = 0
_WIDTH: Final = 130


@dataclass(frozen=True)
class Rates:
    """What one model does with images that it has not seen.

    Attributes:
        alarmed: share of other normal images that it calls anomalies; with groups, the mean over the groups.
        detected: share of the anomalies that it calls anomalies.
    """

    alarmed: float
    detected: float


@dataclass(frozen=True)
class Simulation(Generic[R]):
    """Trains with a few images of a pool, again and again.

    Attributes:
        pool: all images.
        groups: the group of each of them.
        method: fits the models.
        images: the represented pool.
        recipe: has the shares of the parts for a split.
        false_alarm_rate: what the thresholds guarantee.
        measured: how many other normal images and how many anomalies measure a model, at most.
    """

    pool: Pool
    groups: Sequence[str]
    method: Method[R]
    images: R
    recipe: Recipe
    false_alarm_rate: float
    measured: int

    def draw(self, size: int, seed: int) -> list[int]:
        """Positions of at least ``size`` normal images: whole groups in random order, until there are enough.

        Raises:
            TrainingError: there are too few, because at least one group must be left.
        """
        members, normal = defaultdict(list), self._normal
        for position in normal:
            members[self.groups[position]].append(position)
        names = sorted(members)
        random.Random(seed).shuffle(names)  # noqa: S311  not a secret
        drawn: list[int] = []
        for name in names[:-1]:
            drawn += members[name]
            if len(drawn) >= size:
                return sorted(drawn)
        raise TrainingError(f"{size} of {len(normal)} normal images leave none to measure the real rate on")

    def measure(self, drawn: list[int], plan: Plan, seed: int) -> Rates | None:
        """Trains with some of the normal images, and measures with images that are left.

        Args:
            drawn: positions of the normal images.
            plan: how to calibrate.
            seed: of the split or the folds, and of the images that measure.

        Returns:
            None if the plan cannot guarantee the rate with so few images.
        """
        groups = [self.groups[position] for position in drawn]
        try:
            parts = partition(groups, self.recipe, plan=plan, false_alarm_rate=self.false_alarm_rate, seed=seed)
        except TrainingError:
            return None
        model, calibrating = self._fit(self.images[drawn], groups, parts)
        calibration = calibrate(calibrating.tolist(), [groups[at] for at in parts.calibrating], "marginal", seed)
        threshold = calibration.threshold_for(self.false_alarm_rate)

        return Rates(
            self._rate(model, threshold, sorted(set(self._normal) - set(drawn)), seed),
            self._rate(model, threshold, self.pool.anomalies, seed),
        )

    def _rate(self, model: Fitted[R], threshold: float, positions: list[int], seed: int) -> float:
        """The share of images above the threshold, a mean over the groups."""
        sample = random.Random(seed).sample(positions, min(self.measured, len(positions)))  # noqa: S311  not a secret
        of_groups = defaultdict(list)
        for position, score in zip(sample, model.scores(self.images[sample]).tolist(), strict=True):
            of_groups[self.groups[position]].append(score)
        return mean(anomaly_rate(scores, threshold) for scores in of_groups.values())

    @property
    def _normal(self) -> list[int]:
        return [*self.pool.normal, *self.pool.test_normal]

    def _fit(self, images: R, groups: Sequence[str], parts: Partition) -> tuple[Fitted[R], torch.Tensor]:
        """A model, and the scores of the calibration images."""
        if parts.folds:
            return self.method.cross_fit(images, [list(fold) for fold in parts.folds], Progress())
        of_fit = [groups[at] for at in parts.fit]
        model = self.method.fit(images[list(parts.fit)], of_fit, images[list(parts.validation)], Progress())
        return model, model.scores(images[list(parts.calibration)])


def groups_of(pool: Pool) -> list[str]:
    """The group of each image of a pool; test images share no group with others, and anomalies are their own groups."""
    data = pool.data
    of_test = [f"test {number}" for number in range(len(data.test))]
    for number, (group, kind) in enumerate(zip(data.test_groups, data.test_kinds, strict=False)):
        if kind == NORMAL:
            of_test[number] = f"test {group}"
    return [*data.groups, *of_test]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    return exit_status(lambda: _run(options, Console(width=_WIDTH, highlight=False)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.few_images", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("data", help="a folder of normal images and labelled test images, or mnist")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="of MNIST, and cache of decoded images")
    parser.add_argument("--images", default="60,100,200", help="numbers of normal images, separated by commas")
    parser.add_argument("--draws", type=int, default=50, help="draws for each number")
    parser.add_argument("--false-alarm-rate", type=float, default=0.05, help="what the thresholds guarantee")
    parser.add_argument("--recipe", choices=_RECIPES, help="(None: features for folders, default for mnist)")
    parser.add_argument(
        "--size",
        type=lambda side: (int(side), int(side)),
        help="side of the model's input (None: the recipe's)",
    )
    parser.add_argument("--measured", type=int, default=300, help="other normal images, and anomalies, for each draw")
    parser.add_argument("--by-groups", action="store_true", help="draw whole sub-folders")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


def _run(options: argparse.Namespace, console: Console) -> None:
    began = time.perf_counter()
    simulation = _simulation(options)
    sizes, draws = list(map(int, options.images.split(","))), range(options.draws)
    rows: dict[tuple[int, Plan], list[Rates | None]] = {(size, plan): [] for size in sizes for plan in PLANS}
    for size in sizes:
        for seed in draws:
            drawn = simulation.draw(size, seed)
            for plan in PLANS:
                rows[size, plan].append(simulation.measure(drawn, plan, seed))
            seconds = time.perf_counter() - began
            print(f"{size} images, draw {seed + 1} of {len(draws)}: {seconds:.0f} s", file=sys.stderr)
    console.print(_table(simulation, rows))
    console.print(f"{time.perf_counter() - began:.0f} s in total")


def _simulation(options: argparse.Namespace) -> Simulation[Any]:
    recipe = _RECIPES[options.recipe or (DEFAULT if options.data == "mnist" else FEATURES).name]
    rule = "folder" if options.by_groups else "none"
    source = Source(options.data, normal=(_DIGIT,), data_dir=options.data_dir, size=options.size, groups=rule)
    pool = read_pool(source, recipe)
    method = method_of(recipe, SCORING_RULES[DEFAULT_SCORING_RULE], pool.data.spec, seed=_SEED, threads=options.threads)
    images = method.represent(pool, range(len(pool)), Progress(), copies=len(pool))
    return Simulation(pool, groups_of(pool), method, images, recipe, options.false_alarm_rate, options.measured)


def _table(simulation: Simulation[Any], rows: dict[tuple[int, Plan], list[Rates | None]]) -> Table:
    rate, data = simulation.false_alarm_rate, simulation.pool.data
    size = "×".join(map(str, data.spec.shape))
    table = Table(
        title=f"{data.source}, {size}, recipe {simulation.recipe.name}, false-alarm rate {rate:.4g}: "
        "mean ± standard error over draws"
    )
    for heading in ("images", "calibration", "not possible", "false alarms", "detected", ""):
        table.add_column(heading, justify="right")
    for (images, plan), outcomes in rows.items():
        table.add_row(str(images), plan, *cells(outcomes, rate), end_section=plan == PLANS[-1])
    return table


def cells(outcomes: Sequence[Rates | None], false_alarm_rate: float) -> list[str]:
    """What a table shows of some draws.

    Args:
        outcomes: one per draw; None: the rate could not be guaranteed.
        false_alarm_rate: what the thresholds guarantee.
    """
    possible = [each for each in outcomes if each is not None]
    missing = f"{len(outcomes) - len(possible)} of {len(outcomes)}"
    if not possible:
        return [missing, "", "", ""]
    alarmed, detected = [each.alarmed for each in possible], [each.detected for each in possible]
    exceeds = mean(alarmed) > false_alarm_rate + 2 * _standard_error(alarmed)
    remark = f"above {false_alarm_rate:.4g} by more than 2 standard errors" if exceeds else ""
    return [missing, *(f"{mean(each):.3f} ± {_standard_error(each):.3f}" for each in (alarmed, detected)), remark]


def _standard_error(values: Sequence[float]) -> float:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


if __name__ == "__main__":
    sys.exit(main())
