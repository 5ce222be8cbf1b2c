"""Scores of many images."""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import torch

from app.inference.bundles.bundle import BatchScores
from app.inference.bundles.torchscript import ScoringModel
from training.data.images import Images
from training.workers import in_parallel, most_at_once

_BATCH: Final = 32  # so many fit into the processor's caches
_BATCH_VALUES: Final = 2**23  # of the images in a batch: 32 MB


class Scores(NamedTuple):
    """Of N images.

    Attributes:
        mse: N values, mean squared difference of image and reconstruction.
        score: N values, the numbers that are compared with the threshold.
    """

    mse: list[float]
    score: list[float]


def score_all(
    model: ScoringModel,
    images: Images | torch.Tensor,
    threads: int = 1,
    observe: Callable[[BatchScores], None] = lambda _: None,
) -> Scores:
    """Scores images in batches, on the CPU; reconstructions and error maps, which may be large, are dropped.

    Args:
        model: scores batches.
        images: N images; as a tensor, (N, C, H, W) float32 in [0, 1].
        threads: number of threads that compute.
        observe: called with all that the model returns for each batch, in order.
    """
    scores = Scores([], [])
    size = max(1, min(_BATCH, _BATCH_VALUES // math.prod(images.shape[1:])))
    begins, at_once = range(0, len(images), size), most_at_once(*images.shape[2:])
    for batch in in_parallel(lambda at: outputs(model, images[at : at + size]), begins, threads, at_once=at_once):
        scores.mse.extend(batch.mse)
        scores.score.extend(batch.score)
        observe(batch)
    return scores


@torch.inference_mode()
def outputs(model: ScoringModel, images: torch.Tensor) -> BatchScores:
    """All that a model returns for (N, C, H, W) float32 images in [0, 1]."""
    return BatchScores.of(model(images))
