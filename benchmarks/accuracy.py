"""Measures accuracy, reproducibly.

    python -m benchmarks.accuracy mnist  --data-dir data      all ten digits × 3 seeds, compared with published figures
    python -m benchmarks.accuracy folder my-parts             every scoring rule and kind of anomaly, compared with PCA

One recipe is used for everything, and no choice depends on test labels.
"""

import argparse
import ast
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from app.inference.bundles import torchscript
from app.inference.decisions.conformal import Calibration, anomaly_rate
from app.inference.errors import InferenceError
from app.inference.images.model_input import Fit
from training.data.datasets import Dataset, Source, load
from training.data.folders import NORMAL
from training.data.splitting import Partition, split
from training.errors import TrainingError
from training.features.backbone import load_backbone
from training.features.detector import extract, fit_heads, map_maxima
from training.model.fitting import pick_device
from training.model.recipes import DEFAULT, FEATURES, RECIPES, Recipe
from training.model.scoring_rules import DEFAULT_SCORING_RULE, SCORING_RULES
from training.pipeline import fit_network

RATES = (0.01, 0.05)
_BATCH = 256

# Mean AUROC over the ten digits, one class against the rest on the MNIST test set.
PUBLISHED = (
    ("deep convolutional autoencoder (Ruff et al., 2018)", 0.897),
    ("Deep SVDD (Ruff et al., 2018)", 0.948),
    ("OCGAN, LSA, MemAE (2019), about", 0.975),
)


@dataclasses.dataclass(frozen=True)
class Figures:
    """The accuracy of one scoring rule with one network.

    Attributes:
        auroc: area under the ROC curve.
        precision: average precision.
        detected: detection rate, by guaranteed false-alarm rate.
        alarmed: measured false-alarm rate, by guaranteed false-alarm rate.
        kinds: AUROC of each kind of anomaly against the normal images.
    """

    auroc: float
    precision: float
    detected: dict[float, float]
    alarmed: dict[float, float]
    kinds: dict[str, float]


def main(arguments: list[str] | None = None) -> int:
    """Runs a benchmark and prints its table; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    kinds = parser.add_subparsers(required=True)
    mnist = kinds.add_parser("mnist", formatter_class=parser.formatter_class, help="ten digits, several seeds")
    mnist.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that contains MNIST")
    mnist.add_argument("--recipe", choices=RECIPES, default=DEFAULT.name, help="recipe for all digits")
    mnist.add_argument("--seeds", type=int, default=3, help="number of seeds")
    mnist.add_argument("--first-seed", type=int, default=100, help="seeds from 100 on did not influence the recipe")
    mnist.add_argument("--digits", default="0,1,2,3,4,5,6,7,8,9", help="digits, separated by commas")
    mnist.add_argument(
        "--set",
        type=_hyperparameter,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a hyperparameter of the recipe, for example jitter=0",
    )
    mnist.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="number of networks fitted at the same time"
    )
    mnist.set_defaults(run=_mnist)
    folder = kinds.add_parser("folder", formatter_class=parser.formatter_class, help="an image folder")
    folder.add_argument("folder", help="with normal/, test/normal/ and test/anomaly/KIND/")
    folder.add_argument("--data-dir", type=Path, default=Path("data"), help="where decoded images are cached")
    folder.add_argument("--recipes", type=_recipes, default="linear,conv", help="recipes, separated by commas")
    folder.add_argument(
        "--size", type=lambda side: (int(side), int(side)), default="64", help="side of the model's input in pixels"
    )
    folder.add_argument("--fit", choices=get_args(Fit), default="stretch", help="of images of other proportions")
    folder.add_argument("--groups", default="folder", help="folder, none or a regular expression")
    folder.add_argument("--seed", type=int, default=0, help="of the split and the training")
    folder.add_argument("--seeds", type=int, default=3, help="number of splits, for the recipe features")
    folder.set_defaults(run=_folder)
    for each in (mnist, folder):
        each.add_argument("--threads", type=int, default=1, help="CPU threads")
        each.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        options.run(options, Console(width=130, highlight=False))
    except (TrainingError, InferenceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


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


def judge(
    score: Callable[[torch.Tensor], npt.NDArray[np.float64]],
    data: Dataset,
    parts: Partition,
    rates: Iterable[float] = RATES,
) -> Figures:
    """Calibrates and evaluates a score on the split that the network was fitted with.

    Args:
        score: (N, C, H, W) → N scores.
        data: with normal and anomalous test images.
        parts: the split.
        rates: guaranteed false-alarm rates; those that the calibration part cannot guarantee are left out.
    """
    return judge_scores(score(data.normal[list(parts.calibration)]), score(data.test[:]), data.test_kinds, rates)


def judge_scores(
    calibration_scores: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    test_kinds: Sequence[str],
    rates: Iterable[float] = RATES,
) -> Figures:
    """As :func:`judge`, for scores that are known.

    Args:
        calibration_scores: of the calibration images.
        values: scores of the test images.
        test_kinds: ``normal`` or the kind of anomaly, one per test image.
        rates: as above.
    """
    calibration, kinds = Calibration(calibration_scores.tolist()), np.array(test_kinds)
    anomalous = kinds != NORMAL
    thresholds = {rate: calibration.threshold_for(rate) for rate in rates if (len(calibration) + 1) * rate >= 1}
    return Figures(
        auroc=float(roc_auc_score(anomalous, values)),
        precision=float(average_precision_score(anomalous, values)),
        detected={rate: anomaly_rate(values[anomalous].tolist(), at) for rate, at in thresholds.items()},
        alarmed={rate: anomaly_rate(values[~anomalous].tolist(), at) for rate, at in thresholds.items()},
        kinds={
            kind: float(roc_auc_score(kinds[chosen] != NORMAL, values[chosen]))
            for kind in sorted(set(test_kinds) - {NORMAL})
            for chosen in [np.isin(kinds, [NORMAL, kind])]
        },
    )


def _scorer(
    reconstruct: Callable[[torch.Tensor], torch.Tensor], rule: nn.Module
) -> Callable[..., npt.NDArray[np.float64]]:
    @torch.inference_mode()
    def score(images: torch.Tensor) -> npt.NDArray[np.float64]:
        parts = [rule(batch, reconstruct(batch)) for batch in torch.split(images, _BATCH)]
        return torch.cat(parts).double().numpy()

    return score


def _mnist(options: argparse.Namespace, console: Console) -> None:
    recipe, began = dataclasses.replace(RECIPES[options.recipe], **dict(options.set)), time.perf_counter()
    digits = [int(digit) for digit in options.digits.split(",")]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    tasks = [_Task(recipe, digit, seed, options.data_dir, options.device) for digit in digits for seed in seeds]
    load(
        Source("mnist", normal=(digits[0],), data_dir=options.data_dir)
    )  # downloads the data before the processes start
    results: Results = {}
    fitting = 0.0
    # Spawned processes, because torch's threads do not survive a fork.
    with ProcessPoolExecutor(
        options.jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(options.threads,)
    ) as workers:
        for task, (figures, seconds) in zip(tasks, workers.map(_Task.run, tasks), strict=True):
            fitting += seconds
            for rule, of_rule in figures.items():
                results.setdefault((rule, task.digit), []).append(of_rule)
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


@dataclasses.dataclass(frozen=True)
class _Task:
    """One network, evaluated with every scoring rule."""

    recipe: Recipe
    digit: int
    seed: int
    data_dir: Path
    device: str

    def run(self) -> tuple[dict[str, Figures], float]:
        """Returns the figures by rule, and the duration of the fit in seconds."""
        data = load(Source("mnist", normal=(self.digit,), data_dir=self.data_dir))
        parts = split(data.groups, self.recipe, false_alarm_rate=min(RATES), seed=self.seed)
        began = time.perf_counter()
        network, _ = fit_network(self.recipe, data, parts, seed=self.seed, device=pick_device(self.device))
        seconds = time.perf_counter() - began
        return {
            name: judge(_scorer(network, rule.module()), data, parts) for name, rule in SCORING_RULES.items()
        }, seconds


Results = dict[tuple[str, int], list[Figures]]
"""(rule, digit) → one entry per seed."""


def _columns() -> dict[str, Callable[[Figures], float]]:
    columns: dict[str, Callable[[Figures], float]] = {
        "AUROC": lambda f: f.auroc,
        "av. precision": lambda f: f.precision,
    }
    for rate in RATES:
        columns[f"detected at {rate:.0%}"] = partial(_at, "detected", rate)
        columns[f"false alarms at {rate:.0%}"] = partial(_at, "alarmed", rate)
    return columns


def _at(what: str, rate: float, figures: Figures) -> float:
    rates: dict[float, float] = getattr(figures, what)
    return rates[rate]


def _table(title: str, first: str) -> Table:
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    for heading in _columns():
        table.add_column(heading, justify="right")
    return table


def _digits_table(rule: str, digits: Sequence[int], results: Results) -> Table:
    table = _table(f"One digit is normal, nine are anomalies: scoring rule {rule}, mean ± sd over seeds", "digit")
    for digit in digits:
        table.add_row(
            str(digit), *(_spread([value(each) for each in results[rule, digit]]) for value in _columns().values())
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
        _spread([mean(value(results[rule, digit][seed]) for digit in digits) for seed in seeds])
        for value in _columns().values()
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _folder(options: argparse.Namespace, console: Console) -> None:
    if FEATURES in options.recipes:
        _features(options, console)
    if options.recipes != [FEATURES]:
        _pixel_recipes(options, console)


def _features(options: argparse.Namespace, console: Console) -> None:
    """The recipe ``features``: one pass of the backbone, then heads for several splits."""
    began = time.perf_counter()
    data = _load_folder(options, FEATURES.folder_size)
    backbone = torchscript.trace(load_backbone(FEATURES.backbone).network, torch.zeros(1, 3, *data.spec.shape[1:]))
    network = torchscript.optimized(backbone)
    normal, test = extract(network, data.normal), extract(network, data.test)
    console.print(f"features of {len(data.normal) + len(data.test)} images in {time.perf_counter() - began:.1f} s")
    figures = []
    for seed in range(options.seed, options.seed + options.seeds):
        parts = split(data.groups, FEATURES, false_alarm_rate=max(RATES), seed=seed)
        heads = fit_heads(normal.at(parts.fit), [data.groups[index] for index in parts.fit], seed=seed)
        calibration = map_maxima(heads, normal.at(parts.calibration)).double().numpy()
        figures.append(judge_scores(calibration, map_maxima(heads, test).double().numpy(), data.test_kinds))
    table = Table(title=f"recipe features, mean over {options.seeds} splits [range]")
    for heading in ("", "value"):
        table.add_column(heading)
    rows: dict[str, list[float]] = {"AUROC": [each.auroc for each in figures]}
    for kind in sorted(set(data.test_kinds) - {NORMAL}):
        rows[f"AUROC, {kind}"] = [each.kinds[kind] for each in figures]
    for rate in RATES:
        if all(rate in each.detected for each in figures):
            rows[f"detected at {rate:.0%}"] = [each.detected[rate] for each in figures]
            rows[f"false alarms at {rate:.0%}"] = [each.alarmed[rate] for each in figures]
    for name, values in rows.items():
        table.add_row(name, f"{mean(values):.3f} [{min(values):.3f}–{max(values):.3f}]")
    console.print(table)
    console.print(f"{time.perf_counter() - began:.0f} s in total")


def _load_folder(options: argparse.Namespace, size: tuple[int, int]) -> Dataset:
    data = load(Source(options.folder, data_dir=options.data_dir, groups=options.groups, size=size, fit=options.fit))
    if len({kind == NORMAL for kind in data.test_kinds}) != 2:  # noqa: PLR2004  normal images and anomalies
        raise TrainingError(f"{options.folder} needs test images in test/normal/ and test/anomaly/KIND/")
    return data


def _pixel_recipes(options: argparse.Namespace, console: Console) -> None:
    began = time.perf_counter()
    data = _load_folder(options, options.size)
    parts = split(data.groups, DEFAULT, false_alarm_rate=max(RATES), seed=options.seed)
    console.print(
        f"{data.source}: {len(parts.fit)} images for training, {len(parts.calibration)} for calibration, "
        f"{len(data.test)} for testing, "
        f"{'×'.join(map(str, data.spec.shape))}; read in {time.perf_counter() - began:.1f} s"
    )
    autoencoders: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
    for recipe in (each for each in options.recipes if each != FEATURES):
        started = time.perf_counter()
        network, _ = fit_network(recipe, data, parts, seed=options.seed, device=pick_device(options.device))
        autoencoders[f"{recipe.name} autoencoder"] = network
        console.print(f"recipe {recipe.name}: fitted in {time.perf_counter() - started:.1f} s")
    for components in (64, 256):
        autoencoders[f"PCA, {components} components"] = _pca(data, parts, components)
    kinds = sorted(set(data.test_kinds) - {NORMAL})
    for name, reconstruct in autoencoders.items():
        table = Table(title=f"{name}: AUROC, and rates at guaranteed false alarms")
        for heading in ("rule", "all", *kinds, *(f"detected/alarmed at {rate:.0%}" for rate in RATES)):
            table.add_column(heading, justify="left" if heading == "rule" else "right")
        for rule in SCORING_RULES.values():
            figures = judge(_scorer(reconstruct, rule.module()), data, parts)
            rates = [
                f"{figures.detected[rate]:.3f}/{figures.alarmed[rate]:.3f}"
                if rate in figures.detected
                else "not guaranteed"
                for rate in RATES
            ]
            table.add_row(rule.name, f"{figures.auroc:.3f}", *(f"{figures.kinds[kind]:.3f}" for kind in kinds), *rates)
        console.print(table)
    console.print(f"{time.perf_counter() - began:.0f} s in total")


def _pca(data: Dataset, parts: Partition, components: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The baseline: reconstruction from the first principal components of the fit part."""
    fit = data.normal[list(parts.fit)].flatten(1).numpy()
    pca = PCA(min(components, len(fit) - 1), svd_solver="randomized", random_state=0).fit(fit)

    def reconstruct(images: torch.Tensor) -> torch.Tensor:
        flat = pca.inverse_transform(pca.transform(images.flatten(1).numpy()))
        return torch.from_numpy(np.clip(flat, 0, 1).astype(np.float32)).reshape(images.shape)

    return reconstruct


if __name__ == "__main__":
    sys.exit(main())
