"""The first forward passes of a model: they warm it up, and show how large its batches should be."""

import math
import time
from dataclasses import dataclass
from typing import Final

import torch

from app.inference.bundles.bundle import Bundle
from app.inference.bundles.devices import PROCESSOR

SMALL_BATCH, LARGE_BATCH = 64, 32
"""Large batches of small images share the fixed cost of a forward pass. With large images they mostly take memory."""

_SMALL_VALUES: Final = 64 * 64
_NO_GAIN: Final = 1.8  # two images take so many times as long as one: batches would only make others wait
_BATCH_S: Final = 0.1  # for the batches of such a model
_MOST_ELSEWHERE: Final = 8 * LARGE_BATCH  # on another device than the processor
_FREE: Final = 1.3  # twice as many images take so many times as long: the device has idle units
_RUNS: Final = 3  # TorchScript profiles its first calls and then optimises


@dataclass(frozen=True)
class Pace:
    """How fast a model is.

    Attributes:
        max_batch: the number of images of its largest batches.
        seconds: the duration of such a batch.
    """

    max_batch: int
    seconds: float


def warm_up(bundle: Bundle, max_batch: int) -> Pace:
    """Runs the batch sizes that scoring uses. Blocks.

    Args:
        bundle: the model.
        max_batch: the largest batch; 0: chosen by the size of the input and by the time that two images take.
    """
    one, two = _seconds(bundle, 1), _seconds(bundle, 2)
    chosen = SMALL_BATCH if math.prod(bundle.spec.shape) <= _SMALL_VALUES else LARGE_BATCH
    if two > _NO_GAIN * one:
        chosen = max(1, min(chosen, int(_BATCH_S / one)))
    pace = Pace(max_batch or chosen, _seconds(bundle, max_batch or chosen))
    return pace if max_batch or bundle.device == PROCESSOR else _while_free(bundle, pace)


def _while_free(bundle: Bundle, pace: Pace) -> Pace:
    """The largest batches to which further images add little time."""
    while pace.max_batch < _MOST_ELSEWHERE:
        twice = Pace(2 * pace.max_batch, _seconds(bundle, 2 * pace.max_batch))
        if twice.seconds > _FREE * pace.seconds:
            break
        pace = twice
    return pace


def _seconds(bundle: Bundle, size: int) -> float:
    """Seconds of a forward pass: the minimum of a few runs, because other work may interfere."""
    seconds = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        bundle.score_batch(torch.zeros(size, *bundle.spec.shape))
        seconds.append(time.perf_counter() - began)
    return min(seconds)
