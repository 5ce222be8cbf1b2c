"""Out of scope: images that do not look like the training images at all, such as a screenshot or a black frame.

The model itself raises the score of such an image above all that it gives others, also while it is calibrated. So there
is one threshold for both checks, and a normal image that is out of scope counts as a false alarm like any other.
"""

from typing import Final

_LIMIT: Final = 1.0

WARNING: Final = "does not look like the training images at all: a wrong or empty picture, or another product"
"""For people, beside the verdict."""


def is_out_of_scope(scope: float | None, *, is_anomaly: bool) -> bool:
    """Whether an image is out of scope: exactly ``scope > 1``, if it is an anomaly.

    Args:
        scope: distance from the training images as a multiple of the limit; None: the model has no such check.
        is_anomaly: the decision on its score. A threshold that is high enough calls any image normal.
    """
    return is_anomaly and scope is not None and scope > _LIMIT
