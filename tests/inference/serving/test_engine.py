"""Batching: which requests share a batch, what cancellation drops, and the order of the outcomes."""

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from app.inference.bundles.bundle import BatchScores, Bundle
from app.inference.bundles.store import ModelStore
from app.inference.errors import UnreadableImage
from app.inference.images.decoding import decode, open_image
from app.inference.images.model_input import DecodedImage, Fit, InputSpec
from app.inference.serving.batch_queue import CompletedBatch, ServedModel
from app.inference.serving.batch_scorer import BatchOutcome, Rejected, Scored
from app.inference.serving.engine import Decode, Engine
from app.inference.serving.scoring import Results, score
from app.inference.serving.warm_up import LARGE_BATCH, SMALL_BATCH
from tests.deep_images import noise, png
from tests.support import encode, gradient, make_bundle

PNG = encode(gradient())
LARGE = encode(gradient(300, 300), "BMP")
SLOW = encode(gradient(999, 999), "BMP")  # not quick: decoded by the function that the engine is given
UNREADABLE = b"not an image"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
GARBAGE = np.random.default_rng(5).bytes(100_000)


@asynccontextmanager
async def serving(
    bundle: Bundle, batches: list[int], *, max_batch: int = 4, max_pixels: int = 10**6, decode: Decode = decode
) -> AsyncIterator[tuple[Engine, ServedModel]]:
    """Serves a bundle; the size of each batch is appended to ``batches``."""

    def observe(batch: CompletedBatch) -> None:
        batches.append(batch.size)

    engine = Engine(max_batch=max_batch, queue_size=64, max_pixels=max_pixels, decode=decode, observe=observe)
    try:
        yield engine, await engine.serve(bundle)
    finally:
        engine.close()


def kinds(outcomes: Sequence[BatchOutcome]) -> list[type]:
    """The type of each outcome; for a rejected image, the type of the error."""
    return [type(outcome.reason) if isinstance(outcome, Rejected) else type(outcome) for outcome in outcomes]


async def score_files(engine: Engine, model: ServedModel, files: Sequence[bytes]) -> Results:
    return await score(engine, model, files, model.bundle.operating_point())


def test_requests_that_arrive_within_two_turns_of_the_loop_share_a_batch(bundle: Bundle) -> None:
    """A request in a socket takes two turns of the event loop to be admitted."""

    async def scenario() -> None:
        batches: list[int] = []
        async with serving(bundle, batches) as (_, model):
            await asyncio.gather(*(_run_after(model, turns) for turns in (0, 1, 2)))
            assert batches == [3]

    asyncio.run(scenario())


async def _run_after(model: ServedModel, turns: int) -> object:
    for _ in range(turns):
        await asyncio.sleep(0)
    return await model.run([PNG])


def test_a_single_request_is_scored_without_delay(bundle: Bundle) -> None:
    """It takes a few turns of the event loop, and no timer."""

    async def scenario() -> None:
        batches: list[int] = []
        async with serving(bundle, batches) as (_, model):
            scoring = asyncio.ensure_future(model.run([PNG]))
            for _ in range(10):
                await asyncio.sleep(0)
            assert scoring.done()
            assert batches == [1]

    asyncio.run(scenario())


def test_event_loop_runs_other_tasks_between_batches(bundle: Bundle) -> None:
    async def scenario() -> None:
        batches: list[int] = []
        seen: list[int] = []

        async def other() -> None:
            while True:
                seen.append(len(batches))
                await asyncio.sleep(0)

        async with serving(bundle, batches) as (_, model):
            others = asyncio.create_task(other())
            await model.run([PNG] * 11)
            others.cancel()
            assert batches == [4, 4, 3]
            assert {0, 1, 2} <= set(seen)  # the other task ran before, between and after the batches

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("file", "max_pixels"),
    [
        (PNG_SIGNATURE + GARBAGE[:1000], 10**6),
        (JPEG_SIGNATURE + GARBAGE[:1000], 10**6),
        (PNG_SIGNATURE + GARBAGE, 10**6),  # of random width and height: takes too much memory
        (JPEG_SIGNATURE + GARBAGE, 10**6),
        (LARGE, 999),
        (SLOW[:-9999], 10**6),
    ],
)
def test_rejected_image_is_freed_without_garbage_collection(bundle: Bundle, file: bytes, max_pixels: int) -> None:
    """Otherwise images that the memory limit no longer counts stay in memory."""

    async def scenario() -> None:
        async with serving(bundle, [], max_pixels=max_pixels) as (engine, model):
            references = sys.getrefcount(file)
            gc.disable()
            results = await score_files(engine, model, [file])
            assert len(results.rejected) == 1
            del results
            for _ in range(500):  # threads release their work a moment later
                if sys.getrefcount(file) == references:
                    return
                await asyncio.sleep(0.01)
            pytest.fail("the image is still in memory")

    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


def test_decoded_images_of_several_requests_share_a_batch_while_others_wait(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is decoded, and held; then the others are decoded as well."""
    batches: list[int] = []
    permits = threading.Semaphore(1)
    calls: list[bytes] = []
    third = threading.Event()

    def decode_with_permit(file: bytes, spec: InputSpec, *, max_pixels: int) -> DecodedImage:
        calls.append(file)
        if len(calls) == 3:
            third.set()
        permits.acquire()
        return decode(file, spec, max_pixels=max_pixels)

    async def scenario() -> None:
        async with serving(bundle, batches, max_batch=8, decode=decode_with_permit) as (engine, model):
            point = model.bundle.operating_point()
            requests = [asyncio.create_task(score(engine, model, [SLOW], point, diagnose=False)) for _ in range(8)]
            assert await asyncio.to_thread(third.wait, 60)  # two are decoded at once, so the first one is finished
            await asyncio.sleep(0.2)
            assert batches == []
            permits.release(7)
            assert all(kinds(each.outcomes) == [Scored] for each in await asyncio.gather(*requests))

    monkeypatch.setattr("app.inference.serving.decode_queue._LONGEST_HOLD_S", 3600)
    asyncio.run(scenario())
    assert batches[0] > 1
    assert sum(batches) == 8


def test_outcomes_are_in_the_order_of_the_files(bundle: Bundle) -> None:
    async def scenario() -> None:
        async with serving(bundle, []) as (engine, model):
            results = await score_files(engine, model, [PNG, UNREADABLE, LARGE, PNG, UNREADABLE, PNG])
            assert kinds(results.outcomes) == [Scored, UnreadableImage, Scored, Scored, UnreadableImage, Scored]
            assert await model.run([]) == []

    asyncio.run(scenario())


def test_cancelled_requests_are_dropped_from_the_queue(bundle: Bundle) -> None:
    async def scenario() -> None:
        batches: list[int] = []
        async with serving(bundle, batches) as (_, model):
            cancelled, other = (asyncio.ensure_future(model.run([PNG] * size)) for size in (7, 2))
            await asyncio.sleep(0)
            cancelled.cancel()
            assert kinds(await other) == [Scored, Scored]
            assert cancelled.cancelled()
            assert sum(batches) == 2
            batches.clear()
            await asyncio.gather(*(_run_after(model, turns) for turns in (0, 2, 4)))
            assert batches == [3]  # cancelled images do not count as waiting

    asyncio.run(scenario())


def test_model_error_fails_all_requests_of_its_batch_only(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with serving(bundle, []) as (_, model):
            with monkeypatch.context() as patched:
                patched.setattr(Bundle, "score_batch", _fail)
                outcomes = await asyncio.gather(model.run([PNG]), model.run([PNG, PNG]), return_exceptions=True)
                assert [str(outcome) for outcome in outcomes] == ["failed", "failed"]
            assert kinds(await model.run([PNG])) == [Scored]

    asyncio.run(scenario())


def _fail(_: Bundle, images: torch.Tensor) -> BatchScores:
    raise RuntimeError("failed")


def test_admitted_places_are_released(bundle: Bundle) -> None:
    async def scenario() -> None:
        async with serving(bundle, []) as (engine, model):
            with engine.admit(model, 3):
                assert (engine.admitted, model.admitted) == (3, 3)
            with pytest.raises(ZeroDivisionError), engine.admit(model, 2):
                raise ZeroDivisionError
            assert (engine.admitted, model.admitted) == (0, 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_images_of_other_proportions_are_brought_to_the_input_as_the_model_says(tmp_path: Path, fit: Fit) -> None:
    store = ModelStore(tmp_path)
    store.publish(*make_bundle("fitted", spec=InputSpec(mode="L", height=8, width=12, fit=fit)))
    bundle = store.load("fitted", store.current("fitted"))
    files = [
        encode(gradient(20, 30)),  # read with its batch
        encode(gradient(20, 30), "TIFF"),  # decoded with its batch
        encode(gradient(300, 900)),  # decoded in a thread
    ]

    async def scenario() -> Sequence[Scored]:
        async with serving(bundle, []) as (engine, model):
            return (await score_files(engine, model, files)).scored

    for file, scored in zip(files, asyncio.run(scenario()), strict=True):
        assert torch.equal(scored.original, open_image(file, max_pixels=10**6).decode(bundle.spec).tensor)
        assert any(each.endswith("to keep its proportions") for each in scored.warnings)


def test_images_of_more_than_8_bits_are_scaled_and_flattened_as_the_model_says(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    spec = InputSpec(mode="L", height=8, width=8, black=0, white=4095, background="white")
    store.publish(*make_bundle("levels", spec=spec))
    bundle = store.load("levels", store.current("levels"))
    values = noise(2, 12)
    values[0, 0] = 5000
    values[..., 1] = 65535
    values[1, :, 1] = 0
    expected = np.minimum(values[..., 0] / np.float32(4095), 1)
    expected[1] = 1

    async def scenario() -> Sequence[Scored]:
        async with serving(bundle, []) as (engine, model):
            return (await score_files(engine, model, [png(values), encode(gradient())])).scored

    deep, shallow = asyncio.run(scenario())
    torch.testing.assert_close(deep.original[0], torch.from_numpy(expected))
    assert "transparency was flattened onto white" in deep.warnings
    assert "1.6 % of the values are outside 0 to 4,095 and were clipped" in deep.warnings
    assert torch.equal(shallow.original[0], torch.from_numpy(np.asarray(gradient()) / np.float32(255)))


@pytest.mark.parametrize(("side", "most"), [(64, SMALL_BATCH), (65, LARGE_BATCH)])
def test_default_batch_size_depends_on_the_input_size(tmp_path: Path, side: int, most: int) -> None:
    store = ModelStore(tmp_path)
    store.publish(*make_bundle("sized", spec=InputSpec(mode="L", height=side, width=side)))
    sized = store.load("sized", store.current("sized"))

    async def scenario() -> list[int]:
        batches: list[int] = []
        async with serving(sized, batches, max_batch=0) as (engine, model):
            assert len((await score_files(engine, model, 70 * [PNG])).scored) == 70
        return batches

    assert max(asyncio.run(scenario())) == most
