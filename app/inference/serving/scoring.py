"""The scoring use case, shared by all protocols: ``/score``, ``/v2`` and the Ray job.

Each of them parses its input, calls :func:`score` and renders the results.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.inference.bundles.bundle import Bundle
from app.inference.decisions.conformal import OperatingPoint
from app.inference.decisions.false_discovery import FalseDiscoveryRate
from app.inference.decisions.scope import WARNING, is_out_of_scope
from app.inference.errors import InferenceError, Overloaded, TooMuchMemory
from app.inference.images.cost import DecodeCost, decode_cost
from app.inference.images.decoding import open_image
from app.inference.images.model_input import DecodedImage
from app.inference.images.rendering import error_map, png, score_map, to_pixels
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.batch_scorer import BatchOutcome, Content, Large, Outcome, Rejected, Scored, is_large
from app.inference.serving.engine import Engine
from app.inference.serving.localization import ImageRegion, Localization

_T = TypeVar("_T")


class Results(NamedTuple):
    """The results of a request.

    Attributes:
        bundle: the version that scored the images.
        point: the threshold and its false-alarm rate.
        outcomes: one per image, in the request's order.
    """

    bundle: Bundle
    point: OperatingPoint
    outcomes: Sequence[Outcome]

    @property
    def scored(self) -> list[Scored]:
        """The images that were scored, in order."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Scored)]

    def out_of_scope(self, scored: Scored) -> bool:
        """Whether an image does not look like the training images at all; it is then an anomaly."""
        return is_out_of_scope(scored.scope, is_anomaly=self.point.is_anomaly(scored.score))

    def warnings(self, scored: Scored) -> tuple[str, ...]:
        """What decoding changed in an image, and what looks wrong in it."""
        return (*scored.warnings, WARNING) if self.out_of_scope(scored) else scored.warnings

    @property
    def has_regions(self) -> bool:
        """Whether the model has a map of its own; models of schema version 1 have none."""
        return self.bundle.manifest.error_map is not None

    def localize(self, scored: Scored) -> Localization:
        """Where one image is anomalous, at the threshold of the request."""
        return Localization.of(scored, self.bundle.manifest, self.point.threshold)

    def regions(self, scored: Scored) -> list[ImageRegion]:
        """The regions of one image, the strongest first; a normal image has none, and costs nothing."""
        return self.localize(scored).regions() if self.point.is_anomaly(scored.score) else []

    def error_map(self, scored: Scored) -> NDArray[np.uint8]:
        """The error map of one image as (H, W, 3) pixels at the model's input size.

        The model's own map where its maximum is the score, else the squared error per pixel.
        """
        manifest, maps = self.bundle.manifest, scored.error_maps
        if maps is not None and manifest.error_map is not None and manifest.error_map.score == "maximum":
            return score_map(maps[scored.row], manifest.threshold, manifest.input.shape[1:])
        return error_map(scored.original, scored.reconstruction)

    @property
    def rejected(self) -> list[Rejected]:
        """The images that could not be scored, in order."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Rejected)]


async def score(
    engine: Engine,
    model: ServedModel,
    images: Sequence[Content],
    decided_by: OperatingPoint | FalseDiscoveryRate,
    *,
    client: str = "",
    encode: bool = False,
    diagnose: bool = True,
) -> Results:
    """Scores images.

    Args:
        engine: runs the work.
        model: the model, acquired by the caller.
        images: image files, decoded images of the model's input size, or reasons why there is no image.
        decided_by: the threshold, from :meth:`Bundle.operating_point`, or a rule that sets it for all images together.
        client: who sent the images. Clients take turns.
        encode: whether to encode the reconstructions as PNG files.
        diagnose: whether to score the negatives of anomalies as well, to warn of inverted images.
    """
    small = [image for image in images if not is_large(image)]
    batched = iter(await model.run(small, encode=encode, diagnose=diagnose, client=client))
    outcomes = [Large(image) if is_large(image) else next(batched) for image in images]
    finished = (
        outcomes if _all_finished(outcomes) else await _score_large(engine, model, outcomes, client, diagnose=diagnose)
    )
    if isinstance(decided_by, FalseDiscoveryRate):
        decided_by = decided_by.operating_point([each.score for each in finished if isinstance(each, Scored)])
    return Results(model.bundle, decided_by, finished)


async def overlay(engine: Engine, model: ServedModel, file: bytes, results: Results, *, client: str = "") -> bytes:
    """A PNG file of the one image of a request: in its own proportions, with its map over it and boxes of its regions.

    Args:
        engine: runs the work.
        model: the model, acquired by the caller.
        file: the image, decoded once more: its pixels were reduced to the model's input.
        results: with one scored image.
        client: who sent it.

    Raises:
        TooMuchMemory, Overloaded: as :meth:`Engine.decode`.
    """
    (scored,), scores = results.scored, results.bundle.calibration.scores
    localization = results.localize(scored)
    spec = localization.picture_spec(model.bundle.spec)
    picture = await engine.decode(model, client, decode_cost(file, spec), file, spec)
    typical = scores[len(scores) // 2]
    return await engine.render(
        picture.pixels.size, lambda: png(localization.overlay(to_pixels(picture.tensor), typical))
    )


def _all_finished(outcomes: list[BatchOutcome]) -> TypeGuard[list[Outcome]]:
    return not any(isinstance(outcome, Large) for outcome in outcomes)


async def _score_large(
    engine: Engine, model: ServedModel, outcomes: list[BatchOutcome], client: str, *, diagnose: bool
) -> list[Outcome]:
    """Decodes large images and scores them in later batches; the order of the outcomes is unchanged."""

    def refuse(file: bytes, reason: TooMuchMemory) -> Rejected:
        try:
            open_image(file, max_pixels=engine.max_pixels)
        except InferenceError as error:  # a better reason: its header is damaged, or announces too many pixels
            return Rejected.of(error)
        return Rejected.of(reason)

    async def decode(file: bytes) -> DecodedImage | Rejected:
        try:
            return await engine.decode(model, client, decode_cost(file, model.bundle.spec), file)
        except TooMuchMemory as error:
            return await engine.in_turn(model, client, DecodeCost(len(file), 0), partial(refuse, file, error))
        except Overloaded:  # of the whole request
            raise
        except InferenceError as error:
            return Rejected.of(error)

    large = [outcome for outcome in outcomes if isinstance(outcome, Large)]
    decoded = await _gather([asyncio.ensure_future(decode(image.file)) for image in large])
    await engine.coalesce()
    scored = iter(await model.run(decoded, diagnose=diagnose, client=client))
    finished = [next(scored) if isinstance(outcome, Large) else outcome for outcome in outcomes]
    assert _all_finished(finished)  # noqa: S101  decoded images are not large
    return finished


async def _gather(futures: Sequence[asyncio.Future[_T]]) -> list[_T]:
    """The results in order. If a future fails, or the caller is cancelled, the other futures are cancelled."""
    try:
        return [await future for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise
