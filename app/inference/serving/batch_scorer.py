"""A batch of images from files to answers: decoded, one forward pass, judged and encoded, each in one tight loop.

That costs a fraction of the same work strewn between requests.
"""

import time
from collections.abc import Sequence
from math import isfinite
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from app.inference.bundles.bundle import Bundle
from app.inference.errors import InferenceError, NonFiniteScore
from app.inference.images.decoding import Decoded, ImageFile, open_image, stack
from app.inference.images.plain_png import read_plain_pngs
from app.inference.images.rendering import png, pngs, to_pixels

# Up to these sizes images are decoded and encoded with their batch: larger ones would hold it up.
_SMALL_BYTES: Final = 64 * 1024
SMALL_PIXELS: Final = 256 * 256

_BELOW_ALL: Final = "the score lies below that of every calibration image: emptier or simpler than what was learned"
_ABOVE_ALL: Final = "the score lies above that of every calibration image"


class Scored(NamedTuple):
    """What the model made of one image.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1], the batch that it was scored in.
        reconstructions: the same shape.
        row: which of them it is.
        png: the reconstruction as a PNG file, if it was made with the batch; else :meth:`reconstruction_png` makes it.
        mse: mean squared difference of the two over channels and pixels.
        score: the error that the verdict is decided on.
        p_value: conformal p-value of the score, in (0, 1].
        warnings: what was done to the image before, or looks wrong.
        queue_s: how long the image waited for its batch.
        compute_s: how long its batch was worked on.
    """

    images: torch.Tensor
    reconstructions: torch.Tensor
    row: int
    png: bytes | None
    mse: float
    score: float
    p_value: float
    warnings: tuple[str, ...]
    queue_s: float
    compute_s: float

    @property
    def original(self) -> torch.Tensor:
        """(C, H, W) float32 in [0, 1], the model's input."""
        return self.images[self.row]

    @property
    def reconstruction(self) -> torch.Tensor:
        """The same shape."""
        return self.reconstructions[self.row]

    def reconstruction_png(self) -> bytes:
        """The reconstruction as a PNG file."""
        return self.png or png(to_pixels(self.reconstruction))


class Large(InferenceError):
    """A large image: it cannot be decoded with its batch."""


Outcome: TypeAlias = Scored | InferenceError
"""What a model made of an image, or why it was refused."""


class Scorer:
    """Scores batches with one bundle. Blocks; one thread at a time.

    Args:
        bundle: of the model.
        max_pixels: the largest width × height that is decoded.
    """

    def __init__(self, bundle: Bundle, *, max_pixels: int) -> None:
        self.bundle = bundle
        self._max_pixels = max_pixels
        self._levels_shape = bundle.spec.levels_shape
        self._encodes = bundle.spec.height * bundle.spec.width <= SMALL_PIXELS

    def score(
        self, contents: Sequence[bytes | Decoded], encode: Sequence[bool], since: Sequence[float]
    ) -> list[Outcome]:
        """Scores a batch.

        Args:
            contents: image files, or what was decoded before.
            encode: of each, whether its reconstruction will be asked for as a PNG file.
            since: of each, the ``time.perf_counter()`` since when it has waited.

        Returns:
            An outcome for each, in the same order.
        """
        began = time.perf_counter()
        outcomes = self._decoded(contents)
        readable = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Decoded)]
        scored = iter(
            self._scored(
                [outcome for outcome in outcomes if isinstance(outcome, Decoded)],
                [encode[index] and self._encodes for index in readable],
                [since[index] for index in readable],
                began,
            )
            if readable
            else ()
        )
        return [next(scored) if isinstance(outcome, Decoded) else outcome for outcome in outcomes]

    def _scored(
        self, decoded: Sequence[Decoded], encode: Sequence[bool], since: Sequence[float], began: float
    ) -> list[Outcome]:
        images = stack(decoded)
        scores = self.bundle.score_batch(images)
        calibration, rebuilt = self.bundle.calibration, scores.reconstruction
        lowest, highest = calibration.scores[0], calibration.scores[-1]
        shown = [row for row, wanted in enumerate(encode) if wanted]
        files = iter(pngs(to_pixels(rebuilt if len(shown) == len(rebuilt) else rebuilt[shown])) if shown else ())
        compute_s = time.perf_counter() - began
        outcomes: list[Outcome] = []
        rows = enumerate(zip(decoded, encode, since, scores.mse, scores.score, strict=True))
        for row, (image, wanted, start, mse, score) in rows:
            file = next(files) if wanted else None
            if not (isfinite(mse) and isfinite(score)):
                outcomes.append(NonFiniteScore(f"the model returned an MSE of {mse} and a score of {score}"))
                continue
            warnings = image.warnings
            if not lowest <= score <= highest:
                warnings += (_BELOW_ALL if score < lowest else _ABOVE_ALL,)
            p_value, queue_s = calibration.p_value(score), began - start
            outcomes.append(Scored(images, rebuilt, row, file, mse, score, p_value, warnings, queue_s, compute_s))
        return outcomes

    def _decoded(self, contents: Sequence[bytes | Decoded]) -> list[Decoded | InferenceError]:
        files = [content for content in contents if isinstance(content, bytes) and len(content) <= _SMALL_BYTES]
        plain = iter(read_plain_pngs(files, max_pixels=self._max_pixels))
        return [
            content
            if isinstance(content, Decoded)
            else Large()
            if len(content) > _SMALL_BYTES
            else self._decoded_file(content, next(plain))
            for content in contents
        ]

    def _decoded_file(self, file: bytes, plain: NDArray[np.uint8] | None) -> Decoded | InferenceError:
        """Decodes a small file, whose pixels may have been simple to read."""
        if plain is not None and plain.shape == self._levels_shape:
            return Decoded(plain, ())
        try:
            image = open_image(file, max_pixels=self._max_pixels) if plain is None else ImageFile(plain)
            return image.decode(self.bundle.spec) if image.pixels <= SMALL_PIXELS else Large()
        except InferenceError as refusal:
            return refusal
