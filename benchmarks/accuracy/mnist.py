"""One MNIST digit is normal and nine are anomalies, for every digit and several seeds."""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy.figures import RATES, Figures, quantities, with_deviation
from benchmarks.accuracy.pool import Pool, read_pool
from benchmarks.accuracy.trials import Trial, by_group, run_trial
from training.data.datasets import Source
from training.methods import method_of
from training.model.method import Progress
from training.model.recipes import RECIPES, Recipe
from training.model.scoring_rules import DEFAULT_SCORING_RULE, SCORING_RULES

# Mean AUROC over the ten digits, one class against the rest on the MNIST test set.
PUBLISHED = (
    ("deep convolutional autoencoder (Ruff et al., 2018)", 0.897),
    ("Deep SVDD (Ruff et al., 2018)", 0.948),
    ("OCGAN, LSA, MemAE (2019), about", 0.975),
)

Results = dict[tuple[str, int], list[Figures]]
"""(rule, digit) → one entry per seed."""


def run(options: argparse.Namespace, console: Console) -> None:
    """Fits a model for each digit and seed, and prints tables.

    Raises:
        TrainingError: the images cannot be had, or the loss diverged.
    """
    recipe, began = dataclasses.replace(RECIPES[options.recipe], **dict(options.set)), time.perf_counter()
    digits = [int(digit) for digit in options.digits.split(",")]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    tasks = [_Task(recipe, digit, seed, options.data_dir, options.device) for digit in digits for seed in seeds]
    _read(digits[0], recipe, options.data_dir)  # downloads the data before the processes start
    results: Results = {}
    fitting = 0.0
    # Spawned processes, because torch's threads do not survive a fork.
    with ProcessPoolExecutor(
        options.jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(options.threads,)
    ) as workers:
        for task, trial in zip(tasks, workers.map(_Task.run, tasks), strict=True):
            fitting += trial.seconds
            for rule, figures in trial.figures.items():
                results.setdefault((rule, task.digit), []).append(figures)
            if task.seed == seeds[-1]:
                console.print(f"digit {task.digit}: {time.perf_counter() - began:.0f} s")
    for rule in ("mse", DEFAULT_SCORING_RULE):
        console.print(_digits_table(rule, digits, results))
    console.print(_rules_table(digits, results))
    console.print("Published mean AUROC:", "; ".join(f"{name} {value:.3f}" for name, value in PUBLISHED))
    console.print(
        f"{len(tasks)} models, {fitting / len(tasks):.1f} s to fit each, {options.jobs} at the same time, "
        f"{time.perf_counter() - began:.0f} s in total"
    )


def _read(digit: int, recipe: Recipe, data_dir: Path) -> Pool:
    return read_pool(Source("mnist", normal=(digit,), data_dir=data_dir), recipe)


@dataclasses.dataclass(frozen=True)
class _Task:
    """One network, evaluated with every scoring rule."""

    recipe: Recipe
    digit: int
    seed: int
    data_dir: Path
    device: str

    def run(self) -> Trial:
        pool = _read(self.digit, self.recipe, self.data_dir)
        rule = SCORING_RULES[DEFAULT_SCORING_RULE]
        method = method_of(self.recipe, rule, pool.data.spec, seed=self.seed, device=self.device)
        images = method.represent(pool, range(len(pool)), Progress())
        division = by_group(pool, self.recipe, false_alarm_rate=min(RATES), seed=self.seed)
        return run_trial(method, images, pool.kinds, division, seed=self.seed)


def _table(title: str, first: str) -> Table:
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    for heading in quantities():
        table.add_column(heading, justify="right")
    return table


def _digits_table(rule: str, digits: Sequence[int], results: Results) -> Table:
    table = _table(f"One digit is normal, nine are anomalies: scoring rule {rule}, mean ± sd over seeds", "digit")
    for digit in digits:
        of_digit = results[rule, digit]
        table.add_row(
            str(digit), *(with_deviation([quantity(each) for each in of_digit]) for quantity in quantities().values())
        )
    table.add_section()
    table.add_row("mean", *_means(rule, digits, results))
    return table


def _rules_table(digits: Sequence[int], results: Results) -> Table:
    table = _table("Every scoring rule with the same networks: mean over the digits, ± sd over seeds", "rule")
    for rule in SCORING_RULES:
        table.add_row(rule, *_means(rule, digits, results))
    return table


def _means(rule: str, digits: Sequence[int], results: Results) -> list[str]:
    seeds = range(len(results[rule, digits[0]]))
    return [
        with_deviation([mean(quantity(results[rule, digit][seed]) for digit in digits) for seed in seeds])
        for quantity in quantities().values()
    ]
