"""Refuses images that decoding made blank: black ink on a transparent ground, flattened onto black."""

from typing import Final

from app.inference.images.model_input import InputSpec
from training.data.images import Images
from training.data.remarks import Remark
from training.errors import TrainingError

_SAMPLE: Final = 200
_MOST: Final = 0.9
_BLANK: Final = 2.5 / 255  # largest difference between two pixels of one channel
_WHITE: Final = "white"


def refuse_blank(images: Images, remarks: tuple[Remark, ...], spec: InputSpec) -> None:
    """Refuses a set of images of which most are blank, and most were changed in a way that explains it.

    Args:
        images: N images, at least one.
        remarks: what decoding changed in them.
        spec: what they were converted to.

    Raises:
        TrainingError: with what to do.
    """
    changed = [remark for remark in remarks if remark.images >= _MOST * len(images)]
    remedies = {remark.text: remedy for remark in changed if (remedy := _remedy(remark.text, spec))}
    if not remedies:
        return
    sample = images[:: max(1, len(images) // _SAMPLE)]
    differences = (sample.amax(dim=(2, 3)) - sample.amin(dim=(2, 3))).amax(dim=1)
    if (share := float((differences <= _BLANK).float().mean())) >= _MOST:
        reason, remedy = next(iter(remedies.items()))
        raise TrainingError(f"{share:.0%} of the normal images are blank, because {_clause(reason)}: try {remedy}")


def _remedy(text: str, spec: InputSpec) -> str | None:
    if text.startswith("transparency was flattened"):
        return "--background black" if spec.background == _WHITE else f"--background {_WHITE}"
    if text.startswith("uses only") or "which is white for the model" in text or "were clipped" in text:
        return "--levels auto, or --levels LOW:HIGH with the range of the values"
    return None


def _clause(text: str) -> str:
    return f"each {text}" if text.startswith("uses") else text
