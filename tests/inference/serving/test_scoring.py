"""The scoring use case: warnings of inverted images, and large images."""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from app.inference.bundles.bundle import BatchScores, Bundle
from app.inference.bundles.store import ModelStore
from app.inference.errors import TooManyPixels, UnreadableImage
from app.inference.images.model_input import DecodedImage
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.batch_scorer import Scored
from app.inference.serving.engine import Engine
from app.inference.serving.scoring import Results, score
from tests.support import encode, gradient, make_bundle
from training.run import Published

LARGE = encode(gradient(300, 300), "BMP")
CHECKERBOARD = np.indices((8, 8)).sum(axis=0) % 2


class BlackReconstruction(torch.nn.Module):
    """Reconstructs every image as black, so that the score is the mean of the squared pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.weight


@pytest.fixture(scope="module")
def brightness(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that scores images by their brightness. Its calibration images have scores of about 1/3."""
    store = ModelStore(tmp_path_factory.mktemp("store"))
    store.publish(*make_bundle("brightness", network=BlackReconstruction()))
    return store.load("brightness", store.current("brightness"))


def image(values: Any) -> DecodedImage:
    return DecodedImage(np.broadcast_to(np.asarray(values, np.float32), (1, 8, 8)).copy())


def serve(bundle: Bundle, use: Callable[[Engine, ServedModel], Any]) -> Any:
    """Runs a coroutine function with an engine and the served bundle."""

    async def scenario() -> Any:
        engine = Engine(max_batch=4, queue_size=64, max_pixels=10**6)
        try:
            return await use(engine, await engine.serve(bundle))
        finally:
            engine.close()

    return asyncio.run(scenario())


def score_images(
    bundle: Bundle,
    *images: bytes | DecodedImage,
    rate: float | None = None,
    encode: bool = False,
    diagnose: bool = True,
) -> Results:
    point = bundle.operating_point(rate)
    results: Results = serve(
        bundle, lambda engine, model: score(engine, model, images, point, encode=encode, diagnose=diagnose)
    )
    return results


def test_inverted_anomaly_gets_a_warning(brightness: Bundle) -> None:
    results = score_images(brightness, image(0.5), image(0.9), image(CHECKERBOARD), image(0.8))
    assert [results.point.is_anomaly(each.score) for each in results.scored] == [False, True, True, True]
    inverted = [[text for text in each.warnings if "looks inverted" in text] for each in results.scored]
    assert inverted == [
        [],
        ["looks inverted: its negative would score 0.01"],
        [],  # its negative has the same score
        ["looks inverted: its negative would score 0.04"],
    ]
    assert any("above that of every calibration image" in text for text in results.scored[1].warnings)


def test_warning_of_inverted_images_uses_the_calibrated_threshold(brightness: Bundle) -> None:
    almost = brightness.operating_point().threshold
    normal = image(np.sqrt(almost - 0.001))
    results = score_images(brightness, normal, rate=0.9)
    assert results.point.is_anomaly(results.scored[0].score)
    assert results.scored[0].warnings == ()


@pytest.mark.parametrize("light", [True, False])
def test_negatives_are_scored_of_anomalies_out_of_scope_if_that_is_fast(
    trained: Published, digit_files: dict[int, list[bytes]], monkeypatch: pytest.MonkeyPatch, light: bool
) -> None:
    """It would double the time for each defective part."""
    passes: list[int] = []
    bundle = ModelStore(trained.directory.parent.parent).load("digits-5", trained.manifest.version)
    five, *others = (digit_files[digit][0] for digit in (5, 0, 1))
    dark = encode(ImageOps.invert(Image.open(io.BytesIO(five))))

    async def use(engine: Engine, model: ServedModel) -> Results:
        passes.clear()  # those of the warm-up
        return await score(engine, model, [*others, dark], bundle.operating_point())

    def score_batch(self: Bundle, images: torch.Tensor) -> BatchScores:
        passes.append(len(images))
        return original(self, images)

    original = Bundle.score_batch
    monkeypatch.setattr(Bundle, "score_batch", score_batch)
    monkeypatch.setattr("app.inference.serving.engine.LIGHT_S", float("inf") if light else 0)
    results: Results = serve(bundle, use)
    assert [results.point.is_anomaly(each.score) for each in results.scored] == [True, True, True]
    assert [results.out_of_scope(each) for each in results.scored] == [False, False, True]
    assert sum(passes) == len(results.scored) + light
    inverted = [any("looks inverted" in text for text in each.warnings) for each in results.scored]
    assert inverted == [False, False, light]


def test_without_diagnose_there_is_no_warning_of_inverted_images(brightness: Bundle) -> None:
    (scored,) = score_images(brightness, image(0.9), diagnose=False).scored
    assert not any("looks inverted" in text for text in scored.warnings)


def test_encode_encodes_the_reconstructions_with_the_batch(bundle: Bundle) -> None:
    (scored,) = score_images(bundle, encode(gradient()), encode=True).scored
    assert scored.png is not None
    (scored,) = score_images(bundle, encode(gradient())).scored
    assert scored.png is None


def test_large_images_that_cannot_be_decoded_are_rejected_in_their_place(bundle: Bundle) -> None:
    results = score_images(bundle, LARGE, LARGE[:-1000], encode(gradient(1001, 1000)), encode(gradient()))
    assert [isinstance(outcome, Scored) for outcome in results.outcomes] == [True, False, False, True]
    assert [type(rejected.reason) for rejected in results.rejected] == [UnreadableImage, TooManyPixels]


@pytest.mark.parametrize("cause", ["cancelled", "failed"])
def test_pending_decodes_are_cancelled_with_their_request(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    async def use(engine: Engine, model: ServedModel) -> set[int]:
        pending: set[int] = set()
        all_pending = asyncio.Event()

        async def decode(*_: object) -> None:
            number = len(pending)
            pending.add(number)
            if len(pending) == 5:
                all_pending.set()
            try:
                await asyncio.sleep(0.01 if cause == "failed" and number == 0 else 30)
                raise RuntimeError("failed")
            finally:
                pending.discard(number)

        monkeypatch.setattr(engine, "decode", decode)
        scoring = asyncio.ensure_future(score(engine, model, [LARGE] * 5, bundle.operating_point()))
        await all_pending.wait()
        if cause == "cancelled":
            scoring.cancel()
        with pytest.raises(RuntimeError if cause == "failed" else asyncio.CancelledError):
            await scoring
        await asyncio.sleep(0.05)
        return set(pending)

    assert serve(bundle, use) == set()
