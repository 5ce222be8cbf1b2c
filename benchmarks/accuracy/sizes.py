"""MNIST digits, enlarged: whether a model of the digit says the same of an image at every size."""

import argparse
from pathlib import Path
from typing import Final, get_args

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from app.inference.bundles.bundle import Bundle
from app.inference.bundles.store import ModelStore
from app.inference.decisions.conformal import anomaly_rate
from app.inference.images.decoding import ImageFile
from app.inference.images.model_input import InputSpec, Reduction, stack
from training.data.datasets import Dataset, Source, load
from training.data.folders import NORMAL
from training.evaluation.scores import score_all

FACTORS: Final = (1, 1.5, 2, 2.5, 4, 10)

_STORE: Final = Path("model_store")
_NAME: Final = "mnist-5"
_DIGIT: Final = 5
_ENLARGERS: Final = {
    "repeated pixels": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
}
"""Title → how a tool enlarges an image."""


def run(options: argparse.Namespace, console: Console) -> None:
    """Scores all test digits at several sizes with the model that is shipped, and prints a table.

    Raises:
        TrainingError: the images cannot be had.
    """
    store = ModelStore(_STORE)
    bundle = store.load(_NAME, store.current(_NAME))
    data = load(Source("mnist", normal=(_DIGIT,), data_dir=options.data_dir))
    table = Table(title=f"{_NAME}, {len(data.test):,} test digits, false-alarm rate {bundle.manifest.false_alarm_rate}")
    for heading in (
        "enlarged",
        "factor",
        *(f"{each}: {what}" for each in get_args(Reduction) for what in ("detected", "false alarms")),
    ):
        table.add_column(heading, justify="right")
    for title, resampling in _ENLARGERS.items():
        for factor in FACTORS:
            files = enlarged(data, factor, resampling)
            cells = [f"{rate:.1%}" for each in get_args(Reduction) for rate in _rates(bundle, data, files, each)]
            table.add_row(title, f"{factor:g}", *cells, end_section=factor == FACTORS[-1])
    console.print(table)


def enlarged(data: Dataset, factor: float, resampling: Image.Resampling) -> list[ImageFile]:
    """The test images as decoded files of ``factor`` times their size."""
    height, width = (round(side * factor) for side in data.native_size)
    levels = (torch.stack([*data.test])[:, 0] * 255).round().to(torch.uint8).numpy()
    resized = [np.asarray(Image.fromarray(each).resize((width, height), resampling)) for each in levels]
    return [ImageFile.of_levels(each[None]) for each in resized]


def _rates(bundle: Bundle, data: Dataset, files: list[ImageFile], reduction: Reduction) -> tuple[float, float]:
    """(detection rate, false-alarm rate) at the model's threshold."""
    spec: InputSpec = bundle.spec.model_copy(update={"reduction": reduction})
    scores = score_all(bundle.model, stack([file.decode(spec) for file in files])).score
    by_kind: dict[bool, list[float]] = {True: [], False: []}
    for score, kind in zip(scores, data.test_kinds, strict=True):
        by_kind[kind == NORMAL].append(score)
    threshold = bundle.manifest.threshold
    return anomaly_rate(by_kind[False], threshold), anomaly_rate(by_kind[True], threshold)
