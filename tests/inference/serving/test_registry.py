"""The model registry: loading on first use, eviction, refusals, and the share of each model in the queue."""

import asyncio
import gc
import shutil
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from app.inference.bundles.bundle import Bundle
from app.inference.bundles.store import ModelStore
from app.inference.errors import ModelUnavailable, Overloaded, UnknownModel
from app.inference.serving import registry as module
from app.inference.serving import scoring
from app.inference.serving.batch_scorer import Scored
from app.inference.serving.engine import Engine
from app.inference.serving.registry import ModelRegistry
from tests.support import encode, gradient, make_bundle

PNG = encode(gradient())


class CountingStore(ModelStore):
    """A store that records which models are loaded."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.loads: list[str] = []

    def load(self, name: str, version: str) -> Bundle:
        self.loads.append(name)
        return super().load(name, version)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    for seed, name in enumerate("abcdef"):
        ModelStore(root).publish(*make_bundle(name, seed=seed))
    return root


@pytest.fixture
def store(published: Path, tmp_path: Path) -> CountingStore:
    shutil.copytree(published, tmp_path / "store")
    return CountingStore(tmp_path / "store")


@pytest.fixture(autouse=True)
def _fast_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(gc, "freeze", lambda: None)  # it would affect other tests in this process


@asynccontextmanager
async def running(
    store: ModelStore, *, max_loaded: int = 3, preload: tuple[str, ...] = ()
) -> AsyncIterator[ModelRegistry]:
    engine = Engine(max_batch=4, queue_size=8, max_pixels=10**7)
    registry = ModelRegistry(store, engine, "a", max_loaded=max_loaded, preload=preload)
    watch = asyncio.create_task(registry.watch())
    try:
        await until(lambda: not registry.starting)
        yield registry
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        engine.close()


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.005)


def names(registry: ModelRegistry) -> list[str]:
    return [model.bundle.manifest.name for model in registry.served]


async def score(registry: ModelRegistry, name: str) -> object:
    with await registry.get(name) as model:
        (outcome,) = await model.run([PNG])
        return outcome


def test_default_and_preloaded_models_are_loaded_at_the_start(store: CountingStore) -> None:
    async def scenario() -> None:
        async with running(store, preload=("c", "b")) as registry:
            await until(lambda: len(registry.served) == 3)
        assert store.loads == ["a", "c", "b"]

    asyncio.run(scenario())


def test_least_recently_used_model_is_evicted_but_never_the_default(store: CountingStore) -> None:
    async def scenario() -> None:
        async with running(store) as registry:
            for name in "bcb":
                await score(registry, name)
            await asyncio.sleep(0.1)
            await score(registry, "d")
            assert names(registry) == ["a", "b", "d"]
            for name in "bcdef" * 2:
                await score(registry, name)
                assert len(registry.served) <= 3
                assert "a" in names(registry)

    asyncio.run(scenario())


def test_evicted_model_is_freed_without_garbage_collection(store: CountingStore) -> None:
    async def scenario() -> None:
        async with running(store, max_loaded=2) as registry:
            evicted = weakref.ref((await registry.get("b")).bundle.model)
            gc.disable()  # frozen objects are not collected: reference counting must be enough
            try:
                await asyncio.sleep(0.1)
                await score(registry, "c")
                assert evicted() is None
            finally:
                gc.enable()

    asyncio.run(scenario())


def test_model_in_use_is_evicted_last_and_after_its_last_request(store: CountingStore) -> None:
    async def scenario() -> None:
        async with running(store) as registry:
            with await registry.get("b") as b:
                await score(registry, "c")
                await asyncio.sleep(0.1)
                await score(registry, "d")  # c was used more recently, but b is in use
                assert names(registry) == ["a", "b", "d"]
                with await registry.get("d"):
                    waiting = asyncio.create_task(score(registry, "e"))
                    await asyncio.sleep(0.2)
                    assert not waiting.done()  # all models are in use
                    assert "e" not in store.loads
                    (outcome,) = await b.run([PNG])  # the evicted b can still score
                    assert not isinstance(outcome, Exception)
                    d = registry.served[-1]
                    assert d.references == 1
            await waiting
            assert len(registry.served) == 3

    asyncio.run(scenario())


def test_busy_model_does_not_prevent_loading_another(store: CountingStore) -> None:
    async def scenario() -> None:
        async with running(store, max_loaded=2) as registry:
            flooding = True

            async def flood() -> int:
                count = 0
                while flooding:
                    await score(registry, "b")
                    count += 1
                return count

            floods = [asyncio.create_task(flood()) for _ in range(8)]
            await until(lambda: "b" in names(registry))
            for _ in range(3):
                async with asyncio.timeout(10):
                    await score(registry, "c")
            flooding = False
            assert min(await asyncio.gather(*floods)) > 0

    asyncio.run(scenario())


def test_concurrent_requests_load_a_model_once_even_if_the_first_is_cancelled(store: CountingStore) -> None:
    async def scenario() -> None:
        async with running(store) as registry:
            requests = [asyncio.create_task(score(registry, "b")) for _ in range(20)]
            await asyncio.sleep(0)
            requests[0].cancel()
            outcomes = await asyncio.gather(*requests, return_exceptions=True)
            assert isinstance(outcomes[0], asyncio.CancelledError)
            assert not any(isinstance(outcome, BaseException) for outcome in outcomes[1:])
        assert store.loads == ["a", "b"]

    asyncio.run(scenario())


def test_refused_model_is_not_loaded_again_until_its_files_change(store: CountingStore) -> None:
    async def scenario() -> None:
        model = store.root / "b" / store.current("b") / "model.pt"
        valid = model.read_bytes()
        model.write_bytes(valid[:-1] + bytes([valid[-1] ^ 1]))
        async with running(store) as registry:
            for _ in range(30):
                with pytest.raises(ModelUnavailable, match=r"model\.pt was changed"):
                    await registry.get("b")
                await asyncio.sleep(0.005)
            assert store.loads == ["a", "b"]
            assert [refusal.model for refusal in registry.refused] == ["b"]
            model.write_bytes(valid)
            await until(lambda: not registry.refused)
            await score(registry, "b")
            assert store.loads == ["a", "b", "b"]

    asyncio.run(scenario())


def test_other_load_errors_are_refusals_and_loading_is_retried(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(store) as registry:
            with monkeypatch.context() as patched, structlog.testing.capture_logs():
                patched.setattr(store, "load", lambda name, version: bytearray(2**62))
                with pytest.raises(ModelUnavailable, match="b: cannot be loaded"):
                    await registry.get("b")
            await until(lambda: not registry.refused)
            await score(registry, "b")

    asyncio.run(scenario())


def test_unknown_model_names(store: CountingStore) -> None:
    async def scenario() -> None:
        async with running(store) as registry:
            for name in ("nothing", "../a", "", "a/b", "x" * 100, "nul\0"):
                with pytest.raises(UnknownModel):
                    await registry.get(name)
            assert registry.refused == []

    asyncio.run(scenario())


def test_missing_model_to_preload_is_reported_and_loaded_when_published(store: CountingStore) -> None:
    async def scenario() -> None:
        async with running(store, preload=("late", "b")) as registry:
            await until(lambda: "b" in names(registry))
            (refusal,) = registry.refused
            assert (refusal.model, refusal.reason) == (
                "late", "late: cannot be preloaded: there is no model named 'late'",
            )  # fmt: skip
            store.publish(*make_bundle("late"))
            await until(lambda: "late" in names(registry))
            assert registry.refused == []

    asyncio.run(scenario())


def test_model_whose_new_version_is_refused_is_evicted_last(store: CountingStore) -> None:
    async def scenario() -> None:
        async with running(store) as registry:
            await score(registry, "b")
            (store.root / "b" / "CURRENT").write_text("missing")
            await until(lambda: bool(registry.refused))
            for name in "cdcd":
                await score(registry, name)
                await asyncio.sleep(0.06)
            assert "b" in names(registry)

    asyncio.run(scenario())


def test_polling_checks_only_loaded_models(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        polled: list[str] = []
        disk_state = module._disk_state

        def recording(model: Path, *, files: bool) -> object:
            polled.append(model.name)
            assert not files
            return disk_state(model, files=files)

        async with running(store) as registry:
            await score(registry, "c")
            await asyncio.sleep(0.1)
            monkeypatch.setattr(module, "_disk_state", recording)
            await until(lambda: len(polled) > 10)
            monkeypatch.undo()
        assert set(polled) == {"a", "c"}

    asyncio.run(scenario())


class TestAdmission:
    """Admission to a queue with eight places."""

    def test_single_model_may_fill_the_queue(self, store: CountingStore) -> None:
        async def scenario() -> None:
            async with running(store) as registry:
                a, engine = await registry.get("a"), registry._engine
                with engine.admit(a, 8):
                    for images in (1, 8):
                        with pytest.raises(Overloaded, match="8 images are in progress, 8 is the limit"):
                            engine.require_room(a, images)
                engine.require_room(a, 8)

        asyncio.run(scenario())

    def test_second_model_gets_its_share_of_a_full_queue(self, store: CountingStore) -> None:
        async def scenario() -> None:
            async with running(store) as registry:
                a, b, engine = await registry.get("a"), await registry.get("b"), registry._engine
                first = engine.admit(a, 6)
                with first, engine.admit(a, 2), engine.admit(b, 1):
                    engine.require_room(b, 3)
                    with pytest.raises(Overloaded):
                        engine.require_room(b, 4)
                    with engine.admit(b, 3):
                        for model in (a, b):
                            with pytest.raises(Overloaded):
                                engine.require_room(model)
                    with pytest.raises(Overloaded):
                        engine.require_room(a)
                assert (engine.admitted, a.admitted, b.admitted, engine._busy) == (0, 0, 0, set())
                with engine.admit(a, 8):
                    engine.require_room(b, 8)  # at least one request is admitted

        asyncio.run(scenario())


def test_large_images_of_one_model_do_not_delay_those_of_another(store: CountingStore) -> None:
    async def scenario() -> None:
        large = encode(gradient(1500, 1500))
        async with running(store) as registry:
            a, b, engine = await registry.get("a"), await registry.get("b"), registry._engine
            flood = asyncio.create_task(scoring.score(engine, a, [large] * 40, a.bundle.operating_point()))
            await until(lambda: bool(engine._large._waiting))
            (outcome,) = (await scoring.score(engine, b, [large], b.bundle.operating_point())).outcomes
            assert isinstance(outcome, Scored)
            assert engine._large._waiting  # most of the forty earlier images are still waiting
            assert all(isinstance(each, Scored) for each in (await flood).outcomes)

    asyncio.run(scenario())
