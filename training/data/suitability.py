"""Whether normal images are enough to learn from: too few of them, copies, and images without contrast.

A threshold can be computed from any of these, and its guarantee says nothing then.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import torch

from training.data.images import Images
from training.data.remarks import Remark
from training.errors import TrainingError

MIN_FIT: Final = 20
"""Normal images that a model must be fitted on."""

_MOST_COPIES: Final = 0.5
_MOST_PLAIN: Final = 0.5
_CONTRAST: Final = 2.5 / 255  # noise of the last bits is no contrast


def doubts(
    images: Images, fit: Sequence[int] | None, *, remarks: Sequence[Remark] = (), background: str = "black"
) -> list[str]:
    """Reasons not to trust a model of these images, each on one line; usually none.

    Args:
        images: all normal images, decoded: copies are images with equal pixels.
        fit: positions of those that a model is fitted on; None: none is fitted, the images set a threshold only.
        remarks: what decoding changed in the images, which can explain why they have no contrast.
        background: the colour behind transparent images.
    """
    digests, plain = [], 0
    for image in images:
        digests.append(hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest())
        plain += _is_plain(image)
    different = len(set(digests))
    reasons = []
    if plain > _MOST_PLAIN * len(images):
        cause = _cause([remark.text for remark in remarks if remark.images >= plain], background)
        reasons.append(f"{plain:,} of {len(images):,} normal images have no contrast: {cause}")
    if len(images) - different > _MOST_COPIES * len(images):
        reasons.append(f"the {len(images):,} normal images are copies of {different:,}: so few say little about others")
    elif fit is not None and (fitted := len({digests[position] for position in fit})) < MIN_FIT:
        reasons.append(f"only {fitted:,} different normal images to fit a model on, which needs at least {MIN_FIT}")
    return reasons


def accepted(reasons: Sequence[str], *, force: bool) -> tuple[str, ...]:
    """The reasons as warnings, if the user insists.

    Raises:
        TrainingError: there are reasons, and the user does not insist.
    """
    if reasons and not force:
        raise TrainingError(f"{'; '.join(reasons)}. Nothing was published; --force publishes a model that says so")
    return tuple(reasons)


def _cause(changes: Sequence[str], background: str) -> str:
    """Why images have no contrast, with the remedy if decoding is the cause."""
    for text in changes:
        if text.startswith("transparency was flattened"):
            return f"{text}; try --background {'black' if background == 'white' else 'white'}"
        if text.startswith("uses only") or "which is white for the model" in text or "were clipped" in text:
            return f"each {text}; try --levels auto, or --levels LOW:HIGH with the range of the values"
    return "they are of one colour"


def _is_plain(image: torch.Tensor) -> bool:
    """Whether no channel of an image, (C, H, W) in [0, 1], varies from place to place."""
    pixels = image.flatten(1)
    return bool((pixels.amax(dim=1) - pixels.amin(dim=1) <= _CONTRAST).all())
