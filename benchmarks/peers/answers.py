"""Whether a peer does the same work: its answer must be that of the service."""

import base64
import io
import math
from typing import Any, Final

from PIL import Image, ImageChops

from benchmarks.errors import BenchmarkError
from benchmarks.load.wrk import MSE_TOLERANCE

_SAME_IN_EACH: Final = ("model", "threshold", "false_alarm_rate")
_RANKS: Final = 0.002  # if rounding moves a score past a calibration score, the p-value changes by one rank
_REDUCED: Final = 0.05  # relative, between ways to reduce an image to the model's input
_NOT_COMPARED: Final = {"reconstruction", "warnings"}  # if the pixels differ; peers give no warnings about decoding


def require_same(answer: dict[str, Any], expected: dict[str, Any], *, exact: bool) -> None:
    """Compares an answer with ours. Each of our fields must be the same; numbers may differ by rounding.

    Args:
        answer: of a peer.
        expected: of the service.
        exact: whether both saw the same pixels. If not, scores may differ by a twentieth.

    Raises:
        BenchmarkError: a field differs.
    """
    tolerance = MSE_TOLERANCE if exact else _REDUCED
    mine, theirs = expected["results"][0], answer["results"][0]
    different = [name for name in _SAME_IN_EACH if answer.get(name) != expected[name]]
    different += mine.keys() ^ theirs.keys()
    for name in mine.keys() & theirs.keys():
        if name in _NOT_COMPARED and not exact:
            continue
        if not _is_same(name, theirs[name], mine[name], tolerance):
            different.append(name)
    if different:
        raise BenchmarkError(f"its answer differs from ours in {', '.join(sorted(different))}")


def _is_same(name: str, value: object, expected: Any, tolerance: float) -> bool:
    if name in {"mse", "score"}:
        return isinstance(value, float) and math.isclose(value, expected, rel_tol=tolerance)
    if name == "p_value":
        return isinstance(value, float) and math.isclose(value, expected, rel_tol=0, abs_tol=_RANKS)
    if name == "reconstruction":
        return isinstance(value, str) and _is_same_image(value, expected)
    return bool(value == expected)


def _is_same_image(one: str, other: str) -> bool:
    """Whether the images of two data URIs are equal, up to one grey level."""
    images = [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in (one, other)]
    if len({(image.mode, image.size) for image in images}) > 1:
        return False
    return int(ImageChops.difference(*images).getextrema()[1]) <= 1  # type: ignore[arg-type]
