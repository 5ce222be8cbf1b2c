"""An image folder with labelled test images: every recipe, scoring rule and kind of anomaly, over several splits."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from benchmarks.accuracy.figures import RATES, Figures, quantities, with_range
from benchmarks.accuracy.pool import read_pool
from benchmarks.accuracy.trials import at_random, by_group, run_trial
from training.data.datasets import Source
from training.methods import method_of
from training.model.method import Progress
from training.model.recipes import LINEAR, Recipe
from training.model.scoring_rules import DEFAULT_SCORING_RULE, SCORING_RULES

# The recipe linear with fewer components than its 512.
BASELINES = tuple(replace(LINEAR, name=f"PCA, {code} components", code=code) for code in (64, 256))


def run(options: argparse.Namespace, console: Console) -> None:
    """Prints a table for each recipe, and one with random splits if the normal images come in groups.

    Raises:
        TrainingError: the folder has no labelled test images, or too few normal ones.
    """
    began = time.perf_counter()
    recipes = [replace(each, backbone=options.backbone) if each.backbone else each for each in options.recipes]
    baselines = () if all(each.backbone for each in recipes) else BASELINES
    for recipe in (*recipes, *baselines):
        _measure(recipe, options, console)
    console.print(f"{time.perf_counter() - began:.0f} s in total")


def _measure(recipe: Recipe, options: argparse.Namespace, console: Console) -> None:
    began = time.perf_counter()
    source = Source(
        options.folder, data_dir=options.data_dir, groups=options.groups, size=options.size, fit=options.fit
    )
    pool = read_pool(source, recipe)
    methods = {
        seed: method_of(
            recipe,
            SCORING_RULES[DEFAULT_SCORING_RULE],
            pool.data.spec,
            seed=seed,
            device=options.device,
            threads=options.threads,
            weights=options.weights,
        )
        for seed in range(options.first_seed, options.first_seed + options.seeds)
    }
    images = methods[options.first_seed].represent(pool, range(len(pool)), Progress(), copies=len(pool))
    console.print(
        f"recipe {recipe.name}: {len(pool)} images of {'×'.join(map(str, pool.data.spec.shape))} read and represented "
        f"in {time.perf_counter() - began:.1f} s"
    )
    ways = {"split by group": by_group, "random split": at_random} if pool.has_groups else {"random split": by_group}
    for way, divide in ways.items():
        divisions = {seed: divide(pool, recipe, false_alarm_rate=max(RATES), seed=seed) for seed in methods}
        trials = [run_trial(method, images, pool.kinds, divisions[seed], seed=seed) for seed, method in methods.items()]
        sizes = divisions[options.first_seed]
        title = (
            f"recipe {recipe.name}, {way}: {len(sizes.fit)} images for fitting, {len(sizes.calibration)} for "
            f"calibration, {len(sizes.test)} for testing; means and ranges of {len(trials)} splits"
        )
        console.print(_table(title, [trial.figures for trial in trials], pool.anomaly_kinds))
        console.print(f"{sum(trial.seconds for trial in trials) / len(trials):.1f} s to fit")


def _table(title: str, trials: Sequence[dict[str, Figures]], kinds: Sequence[str]) -> Table:
    """A column for each scoring rule."""
    table = Table("", title=title)
    rules = list(trials[0])
    for rule in rules:
        table.add_column(rule, justify="right")
    for heading, quantity in quantities(kinds).items():
        table.add_row(heading, *(with_range([quantity(figures[rule]) for figures in trials]) for rule in rules))
    return table
