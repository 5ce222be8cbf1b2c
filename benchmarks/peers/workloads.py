"""What the servers are sent: kinds of images, and how many at once."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final

from PIL import Image

from benchmarks.images.photographs import encoded, photograph
from benchmarks.servers import SHIPPED

_DIGITS: Final = 8
_DIM: Final = 0.03  # each digit is this share darker than the previous one
_PHOTOGRAPHS: Final = 3


@dataclass(frozen=True)
class Workload:
    """Images to send in turn over keep-alive connections.

    Attributes:
        name: for people.
        connections: number of connections.
        exact: whether all servers see the same pixels. If not, because they reduce the image in different ways, their
            scores differ a little.
        create: creates the image files.
    """

    name: str
    connections: int
    exact: bool
    create: Callable[[], Sequence[bytes]]

    @cached_property
    def images(self) -> Sequence[bytes]:
        """The image files, each different from the others."""
        return self.create()


def _digits() -> list[bytes]:
    """Normal images of the shipped model: darkened copies of its golden image."""
    golden = Image.open(io.BytesIO(SHIPPED.golden_image))
    return [
        encoded(golden.point([round(level * (1 - _DIM * number)) for level in range(256)]), "PNG")
        for number in range(1, _DIGITS + 1)
    ]


def _photographs(width: int, height: int, file_format: str) -> list[bytes]:
    return [encoded(photograph(width, height, seed=seed), file_format) for seed in range(_PHOTOGRAPHS)]


WORKLOADS: Final = {
    "digits": Workload("28 × 28 PNG", 32, exact=True, create=_digits),
    "jpeg": Workload("1920 × 1080 JPEG", 8, exact=False, create=partial(_photographs, 1920, 1080, "JPEG")),
    "png": Workload("640 × 480 PNG", 8, exact=False, create=partial(_photographs, 640, 480, "PNG")),
}
"""By the names for ``--images``."""
