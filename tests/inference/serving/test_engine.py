"""The engine's queue: who joins a batch, whose work is dropped, in which order answers stand."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch

from app.inference.bundles.bundle import BatchScores, Bundle
from app.inference.bundles.store import ModelStore
from app.inference.errors import UnreadableImage
from app.inference.images.model_input import InputSpec
from app.inference.serving.batch_queue import CompletedBatch, ServedModel
from app.inference.serving.batch_scorer import BatchOutcome, Rejected, Scored
from app.inference.serving.engine import LARGE_BATCH, SMALL_BATCH, Engine
from app.inference.serving.scoring import Results, score
from tests.support import encode, gradient, make_bundle

PNG = encode(gradient())
LARGE = encode(gradient(300, 300), "BMP")
BROKEN = b"no image"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    store = ModelStore(tmp_path_factory.mktemp("store"))
    store.publish(*make_bundle("a"))
    return store.load("a", store.current("a"))


@asynccontextmanager
async def serving(
    bundle: Bundle, batches: list[int], *, max_batch: int = 4
) -> AsyncIterator[tuple[Engine, ServedModel]]:
    engine = Engine(
        max_batch=max_batch, queue_size=64, max_pixels=10**6, observe=lambda done: _note(batches, done)
    )  # fmt: skip
    try:
        yield engine, await engine.serve(bundle)
    finally:
        engine.close()


def _note(batches: list[int], done: CompletedBatch) -> None:
    batches.append(done.size)


def kinds(outcomes: Sequence[BatchOutcome]) -> list[type]:
    return [type(outcome.reason) if isinstance(outcome, Rejected) else type(outcome) for outcome in outcomes]


async def score_files(engine: Engine, model: ServedModel, files: Sequence[bytes]) -> Results:
    return await score(engine, model, files, model.bundle.operating_point())


def test_what_arrives_within_two_turns_of_the_loop_joins_the_batch(bundle: Bundle) -> None:
    """As a request does that lies in its socket while another one is admitted."""

    async def scenario() -> None:
        batches: list[int] = []
        async with serving(bundle, batches) as (_, model):
            await asyncio.gather(*(_late(model, turns) for turns in (0, 1, 2)))
            assert batches == [3]

    asyncio.run(scenario())


async def _late(model: ServedModel, turns: int) -> object:
    for _ in range(turns):
        await asyncio.sleep(0)
    return await model.run([PNG])


def test_nobody_is_waited_for(bundle: Bundle) -> None:
    """An image alone is scored after a few turns of the loop, not after any time."""

    async def scenario() -> None:
        batches: list[int] = []
        async with serving(bundle, batches) as (_, model):
            scoring = asyncio.ensure_future(model.run([PNG]))
            for _ in range(10):
                await asyncio.sleep(0)
            assert scoring.done()
            assert batches == [1]

    asyncio.run(scenario())


def test_full_batches_go_and_leave_the_loop_its_turns_between(bundle: Bundle) -> None:
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
            assert {0, 1, 2} <= set(seen)  # something else ran before, between and after

    asyncio.run(scenario())


def test_outcomes_stand_in_the_order_of_the_files(bundle: Bundle) -> None:
    async def scenario() -> None:
        async with serving(bundle, []) as (engine, model):
            results = await score_files(engine, model, [PNG, BROKEN, LARGE, PNG, BROKEN, PNG])
            assert kinds(results.outcomes) == [Scored, UnreadableImage, Scored, Scored, UnreadableImage, Scored]
            assert await model.run([]) == []

    asyncio.run(scenario())


def test_who_has_gone_is_not_worked_for(bundle: Bundle) -> None:
    async def scenario() -> None:
        batches: list[int] = []
        async with serving(bundle, batches) as (_, model):
            gone, stays = (asyncio.ensure_future(model.run([PNG] * size)) for size in (7, 2))
            await asyncio.sleep(0)
            gone.cancel()
            assert kinds(await stays) == [Scored, Scored]
            assert gone.cancelled()
            assert sum(batches) == 2
            batches.clear()
            await asyncio.gather(*(_late(model, turns) for turns in (0, 2, 4)))
            assert batches == [3]  # nor does it count as waiting

    asyncio.run(scenario())


def test_a_defect_reaches_everyone_in_the_batch_and_nobody_else(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(bundle, []) as (_, model):
            with monkeypatch.context() as broken:
                broken.setattr(Bundle, "score_batch", _broken)
                outcomes = await asyncio.gather(model.run([PNG]), model.run([PNG, PNG]), return_exceptions=True)
                assert [str(outcome) for outcome in outcomes] == ["broken", "broken"]
            assert kinds(await model.run([PNG])) == [Scored]

    asyncio.run(scenario())


def _broken(_: Bundle, images: torch.Tensor) -> BatchScores:
    raise RuntimeError("broken")


def test_places_are_given_back(bundle: Bundle) -> None:
    async def scenario() -> None:
        async with serving(bundle, []) as (engine, model):
            with engine.admit(model, 3):
                assert (engine.admitted, model.admitted) == (3, 3)
            with pytest.raises(ZeroDivisionError), engine.admit(model, 2):
                raise ZeroDivisionError
            assert (engine.admitted, model.admitted) == (0, 0)

    asyncio.run(scenario())


@pytest.mark.parametrize(("side", "most"), [(64, SMALL_BATCH), (65, LARGE_BATCH)])
def test_small_images_go_more_at_a_time(tmp_path: Path, side: int, most: int) -> None:
    store = ModelStore(tmp_path)
    store.publish(*make_bundle("sized", spec=InputSpec(mode="L", height=side, width=side)))
    sized = store.load("sized", store.current("sized"))

    async def scenario() -> list[int]:
        batches: list[int] = []
        async with serving(sized, batches, max_batch=0) as (engine, model):
            assert len((await score_files(engine, model, 70 * [PNG])).scored) == 70
        return batches

    assert max(asyncio.run(scenario())) == most
