"""The most suspicious normal images: those with the highest scores, where a defect may have been taken for normal.

A model that was fitted on a defect rebuilds it well, so only scores by models that were not fitted on the image count.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch

from training.data.images import Images

NUMBER: Final = 10


class Suspect(NamedTuple):
    """A normal image with a high score.

    Attributes:
        name: of its file.
        score: by a model that was not fitted on it.
        image: (C, H, W) float32 in [0, 1].
    """

    name: str
    score: float
    image: torch.Tensor


def most_suspicious(images: Images, names: Sequence[str], scores: Sequence[float]) -> list[Suspect]:
    """The ten images with the highest scores, the highest first.

    Args:
        images: N normal images.
        names: N names.
        scores: N scores by models that were not fitted on the image.
    """
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    return [Suspect(names[at], scores[at], images[at]) for at in order[:NUMBER]]
