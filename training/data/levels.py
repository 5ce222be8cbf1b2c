"""Levels of images of more than 8 bits: which range of values a set of images uses.

Industrial cameras write 10, 12 or 14 bits into 16-bit files, and programs write 0 to 255 as floating point. Scaled over
the range of the type, such images are nearly black, or white.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

from app.inference.errors import InferenceError
from app.inference.images.decoding import ValueRange, open_image
from app.inference.images.deep import DEPTHS
from app.inference.images.model_input import Levels
from app.inference.machine import usable_cores
from training.data.decoding import MAX_PIXELS
from training.data.folders import cache_key, replacing
from training.errors import TrainingError

LevelsRule: TypeAlias = Literal["auto", "full"] | Levels
"""``auto``: the range that the images use; ``full``: that of their type; or the levels themselves."""

_UNIT_FLOATS: Final = 2.0  # images of values from 0 to 1 can exceed 1 a little; those from 0 to 255 are far above
_OVERSHOOT: Final = 1.05  # floating-point values after resampling or correction can exceed their range a little


def levels_of(rule: LevelsRule, files: Sequence[Path], *, cache: Path) -> Levels | None:
    """The levels for a set of images.

    Args:
        rule: how to choose them.
        files: image files. Those of 8 bits, and those that cannot be read, have no influence.
        cache: folder for what was found.

    Returns:
        The levels; None: the range of each image's type.

    Raises:
        TrainingError: the rule is ``auto``, and no range fits all images.
    """
    if isinstance(rule, Levels):
        return rule
    return None if rule == "full" else fitting(_ranges(files, cache))


def fitting(ranges: Sequence[ValueRange]) -> Levels | None:
    """The smallest range of 8, 10, 12, 14 or 16 bits that holds the values of all images.

    Black is 0: the lowest value of a set depends on its objects and its light, and images that are a little darker
    would be clipped.

    Args:
        ranges: of images of more than 8 bits; may be empty.

    Returns:
        The range; None: that of the values' type, which fits.

    Raises:
        TrainingError: there are integers and floating-point values with different ranges, or values of no usual range.
    """
    floats = [each for each in ranges if each.is_float]
    integers = [each for each in ranges if not each.is_float]
    found = {levels for kind in (floats, integers) if kind for levels in [_of_one_kind(kind)]}
    if len(found) > 1:
        raise TrainingError(
            f"{len(integers):,} images have integers and {len(floats):,} floating-point values, in different ranges: "
            "convert them to one kind, or give --levels LOW:HIGH or --levels full"
        )
    return found.pop() if found else None


def _of_one_kind(ranges: Sequence[ValueRange]) -> Levels | None:
    """The levels for images that all have integers, or all have floating-point values."""
    lowest, highest = min(each.used.black for each in ranges), max(each.used.white for each in ranges)
    is_float = ranges[0].is_float
    if lowest < 0 or (is_float and highest < _UNIT_FLOATS):
        return None
    limits = {2**bits - 1 for bits in DEPTHS} | {each.full.white for each in ranges if each.full.black < 0}
    fits = [limit for limit in sorted(limits) if highest <= limit * (_OVERSHOOT if is_float else 1)]
    if not fits and is_float:
        raise TrainingError(f"floating-point values up to {highest:,g} are in no usual range: give --levels LOW:HIGH")
    levels = Levels(0, fits[0]) if fits else None
    return None if all(each.full == levels for each in ranges) else levels


def _ranges(files: Sequence[Path], cache: Path) -> list[ValueRange]:
    """The ranges of the images of more than 8 bits, from the cache if it has them."""
    cached = cache / f"{cache_key(files, 'levels')}.levels"
    with suppress(OSError):
        return [
            ValueRange(Levels(*used), Levels(*full), is_float)
            for used, full, is_float in json.loads(cached.read_text())
        ]
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = [each for each in pool.map(_range, files) if each is not None]
    with suppress(OSError):  # as for decoded images
        cached.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cached) as temporary:
            temporary.write_text(json.dumps(found))
    return found


def _range(path: Path) -> ValueRange | None:
    try:
        return open_image(path.read_bytes(), max_pixels=MAX_PIXELS).value_range()
    except (InferenceError, OSError):  # decoding will report it
        return None
