"""Scores a batch: decoding, a forward pass, p-values, PNG encoding, each step for all images together.

The same work done request by request takes several times as long.
"""

import time
from collections.abc import Sequence
from math import isfinite
from typing import Final, NamedTuple, Self, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from app.inference.bundles.bundle import Bundle
from app.inference.decisions.conformal import is_anomaly
from app.inference.decisions.scope import is_out_of_scope
from app.inference.errors import InferenceError, NonFiniteScore
from app.inference.images.codecs.plain_png import read_plain_pngs
from app.inference.images.cost import decode_cost
from app.inference.images.decoding import ImageFile, open_image
from app.inference.images.model_input import DecodedImage, stack
from app.inference.images.rendering import png, pngs, to_pixels

# Images up to these sizes are decoded and encoded with their batch; larger ones would delay it.
SMALL_BYTES: Final = 64 * 1024
SMALL_PIXELS: Final = 256 * 256
QUICK_S: Final = 0.02
"""Estimated seconds of decoding. An image that takes longer is decoded where it can be stopped."""

# If the negative has less than half the score, the image is probably dark on light instead of light on dark.
_MUCH_LOWER: Final = 0.5

_BELOW_ALL: Final = (
    "the score lies below that of every calibration image: the image may be emptier or simpler than the training images"
)
_ABOVE_ALL: Final = "the score lies above that of every calibration image"


class Scored(NamedTuple):
    """The outcome for an image that was scored.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1], the model inputs of its batch.
        reconstructions: of its batch, the same shape.
        row: its row in the batch.
        png: the reconstruction as a PNG file, if it was encoded with the batch; see :meth:`reconstruction_png`.
        mse: mean squared difference of input and reconstruction over channels and pixels.
        score: the number that is compared with the threshold.
        p_value: conformal p-value of the score, in (0, 1].
        warnings: changes that decoding made to the image, and suspected problems.
        queue_s: seconds that the image waited for its batch.
        compute_s: seconds that its batch took.
        error_maps: (N, 1, h, w) float32, the model's error maps of the batch; None for bundles of schema version 1.
        size: width and height of the image file, upright; None: those of the model's input.
        scope: above 1 if the image does not look like the training images; None if the model does not say.
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
    error_maps: torch.Tensor | None = None
    size: tuple[int, int] | None = None
    scope: float | None = None

    @property
    def original(self) -> torch.Tensor:
        """(C, H, W) float32 in [0, 1], the model's input."""
        return self.images[self.row]

    @property
    def reconstruction(self) -> torch.Tensor:
        """(C, H, W) float32, the model's reconstruction; values may be outside [0, 1]."""
        return self.reconstructions[self.row]

    def reconstruction_png(self) -> bytes:
        """The reconstruction as a PNG file."""
        return self.png or png(to_pixels(self.reconstruction))


class Rejected(NamedTuple):
    """The outcome for an image that could not be scored.

    Attributes:
        reason: why; its text is for people.
    """

    reason: InferenceError

    @classmethod
    def of(cls, error: InferenceError) -> Self:
        """The outcome for an image whose work raised an error.

        The error loses its traceback and its cause: they refer to frames that hold the image, and these frames to the
        outcome, so all of them would stay in memory until a garbage collection.
        """
        error.__cause__ = error.__context__ = None
        return cls(error.with_traceback(None))


class Large(NamedTuple):
    """The outcome for an image that is too large to be decoded with its batch.

    Attributes:
        file: the image file, unchanged.
    """

    file: bytes


Content: TypeAlias = bytes | DecodedImage | Rejected
"""What a request has for one image: a file, a decoded image, or the reason why it has neither, which is the outcome."""


def is_large(content: Content) -> TypeGuard[bytes]:
    """Whether the size of a file alone says that it is too large to be decoded with its batch."""
    return isinstance(content, bytes) and len(content) > SMALL_BYTES


BatchOutcome: TypeAlias = Scored | Rejected | Large
"""Of one image in a batch. Large images are decoded elsewhere and added to a later batch."""

Outcome: TypeAlias = Scored | Rejected
"""Of one image in a request."""


class Options(NamedTuple):
    """How the images of a request are scored.

    Attributes:
        encode: whether to encode the reconstructions as PNG files.
        diagnose: whether to score the negatives of anomalies as well, to warn of inverted images.
        since: ``time.perf_counter()`` when the images were queued.
    """

    encode: bool
    diagnose: bool
    since: float


class BatchScorer:
    """Scores batches with one bundle. Blocks; one thread at a time.

    Args:
        bundle: the model.
        max_pixels: the largest width × height that is decoded.
        light: whether a full batch takes only a few milliseconds.
    """

    def __init__(self, bundle: Bundle, *, max_pixels: int, light: bool) -> None:
        self.bundle = bundle
        self.light = light
        self._max_pixels = max_pixels
        self._shape = bundle.spec.shape
        self._encodes = bundle.spec.height * bundle.spec.width <= SMALL_PIXELS

    def score(
        self, contents: Sequence[Content], options: Sequence[Options], *, only_plain: bool = False
    ) -> list[BatchOutcome]:
        """Scores a batch.

        Args:
            contents: of the images, none of them large.
            options: for each image, those of its request.
            only_plain: whether to decode nothing but plain PNG files, with a reader whose time is bounded; other files
                count as large.

        Returns:
            One outcome per image, in the same order.
        """
        began = time.perf_counter()
        decoded = self._decode(contents, only_plain=only_plain)
        readable = [
            (image, each) for image, each in zip(decoded, options, strict=True) if isinstance(image, DecodedImage)
        ]
        scored = iter(
            self._score([image for image, _ in readable], [each for _, each in readable], began) if readable else ()
        )
        return [next(scored) if isinstance(image, DecodedImage) else image for image in decoded]

    def _score(self, decoded: Sequence[DecodedImage], options: Sequence[Options], began: float) -> list[Outcome]:
        images = stack(decoded)
        scores = self.bundle.score_batch(images)
        scopes: Sequence[float | None] = scores.scope or [None] * len(decoded)
        inverted = self._warnings_of_inverted(images, scores.score, scopes, options)
        calibration, reconstructions = self.bundle.calibration, scores.reconstruction
        lowest, highest = calibration.scores[0], calibration.scores[-1]
        rows = [row for row, each in enumerate(options) if each.encode and self._encodes]
        to_encode = reconstructions if len(rows) == len(reconstructions) else reconstructions[rows]
        files = iter(pngs(to_pixels(to_encode)) if rows else ())
        compute_s = time.perf_counter() - began
        outcomes: list[Outcome] = []
        columns = zip(decoded, options, scores.mse, scores.score, scopes, strict=True)
        for row, (image, each, mse, score, scope) in enumerate(columns):
            file = next(files) if each.encode and self._encodes else None
            if not (isfinite(mse) and isfinite(score)):
                reason = NonFiniteScore(f"the model returned an MSE of {mse} and a score of {score}")
                outcomes.append(Rejected(reason))
                continue
            warnings = image.warnings
            if not lowest <= score <= highest:
                warnings += (_BELOW_ALL if score < lowest else _ABOVE_ALL,)
            if row in inverted:
                warnings += (inverted[row],)
            p_value, queue_s = calibration.p_value(score), began - each.since
            outcomes.append(
                Scored(
                    images,
                    reconstructions,
                    row,
                    file,
                    mse,
                    score,
                    p_value,
                    warnings,
                    queue_s,
                    compute_s,
                    scores.error_map,
                    image.size,
                    scope,
                )
            )
        return outcomes

    def _warnings_of_inverted(
        self,
        images: torch.Tensor,
        scores: Sequence[float],
        scopes: Sequence[float | None],
        options: Sequence[Options],
    ) -> dict[int, str]:
        """Warnings of the images whose negatives have a far lower score, by row."""
        columns = enumerate(zip(scores, scopes, options, strict=True))
        rows = [row for row, (score, scope, each) in columns if each.diagnose and self._may_be_inverted(score, scope)]
        if not rows:
            return {}
        negatives = self.bundle.score_batch(1 - images[rows]).score
        return {
            row: f"looks inverted: its negative would score {negative:.4g}"
            for row, negative in zip(rows, negatives, strict=True)
            if negative < _MUCH_LOWER * scores[row]
        }

    def _may_be_inverted(self, score: float, scope: float | None) -> bool:
        """Whether it is worth scoring the negative of an image, which takes as long as scoring the image.

        Inverted images are anomalies. If the model checks the scope of images, they are out of scope as well, and have
        a warning; a second forward pass of a slow model would only add a reason to it.
        """
        anomalous = is_anomaly(score, self.bundle.manifest.threshold)
        if scope is None:
            return anomalous
        return self.light and is_out_of_scope(scope, is_anomaly=anomalous)

    def _decode(self, contents: Sequence[Content], *, only_plain: bool) -> list[DecodedImage | Rejected | Large]:
        files = [content for content in contents if isinstance(content, bytes)]
        plain = iter(read_plain_pngs(files, max_pixels=self._max_pixels))
        return [
            self._decode_file(content, next(plain), only_plain=only_plain) if isinstance(content, bytes) else content
            for content in contents
        ]

    def _decode_file(
        self, file: bytes, plain: NDArray[np.uint8] | None, *, only_plain: bool
    ) -> DecodedImage | Rejected | Large:
        """Decodes a small file; ``plain`` is the result of ``read_plain_pngs`` for it."""
        if plain is not None and plain.shape == self._shape:
            return DecodedImage(plain)
        if plain is None and (only_plain or decode_cost(file, self.bundle.spec).seconds > QUICK_S):
            return Large(file)
        try:
            image = open_image(file, max_pixels=self._max_pixels) if plain is None else ImageFile.of_levels(plain)
            return image.decode(self.bundle.spec) if image.pixels <= SMALL_PIXELS else Large(file)
        except InferenceError as error:
            return Rejected.of(error)
