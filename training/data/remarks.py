"""What decoding changed in a set of images: the decoder's warnings, counted by kind."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

_NUMBER: Final = re.compile(r"-?\d[\d.,]*(?:e[+-]\d+)?")


class Remark(NamedTuple):
    """A kind of warning.

    Attributes:
        text: the warning, of several that differ in their numbers only the most frequent.
        images: number of images with a warning of this kind.
        varies: whether their numbers differ.
    """

    text: str
    images: int
    varies: bool

    def line(self, what: str) -> str:
        """As a line of text; ``what`` says what the images are, for example ``normal``."""
        return (
            f"{self.images:,} {what} image{'s' * (self.images != 1)}: {self.text}"
            f"{' (most often; other numbers in others)' * self.varies}"
        )


def counted(warnings: Iterable[Sequence[str]]) -> tuple[Remark, ...]:
    """The kinds of warnings of images, the most frequent first.

    Args:
        warnings: of each image.
    """
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for of_image in warnings:
        for text in set(of_image):
            kinds[_NUMBER.sub("#", text)][text] += 1
    remarks = [Remark(texts.most_common(1)[0][0], texts.total(), len(texts) > 1) for texts in kinds.values()]
    return tuple(sorted(remarks, key=lambda remark: (-remark.images, remark.text)))
