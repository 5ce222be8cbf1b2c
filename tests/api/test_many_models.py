"""A service with many models: memory limit, fairness and paging, over HTTP."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.api.routes.models import _page_of
from app.api.schemas.health import Health
from app.api.schemas.model_cards import Models
from app.inference.bundles.manifest import Manifest
from app.inference.bundles.store import ModelStore
from app.inference.serving.engine import Engine
from app.inference.serving.registry import ModelRegistry
from benchmarks.load.clients import crowd, post
from tests.support import Server, SlowAutoencoder, encode, gradient, make_bundle, running_server

PNG = encode(gradient())
NAMES = [f"m{number:02}" for number in range(12)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with twelve models, one of them damaged, and a slow model."""
    store = ModelStore(tmp_path_factory.mktemp("store"))
    for seed, name in enumerate(NAMES):
        store.publish(*make_bundle(name, seed=seed))
    model = store.root / "m07" / store.current("m07") / "model.pt"
    model.write_bytes(model.read_bytes()[:-1])
    store.publish(*make_bundle("slow", network=SlowAutoencoder(400)))
    return store.root


@pytest.fixture(scope="module")
def service(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "log"
    with running_server(
        root, log, model="m00", max_loaded_models=4, preload="m01,m07", queue_size=64, max_batch=4, max_files=8
    ) as running:
        yield running


def score(server: Server, model: str, **options: object) -> int:
    return server.client.post(f"/score?include=&model={model}", files={"file": PNG}, **options).status_code  # type: ignore[arg-type]


def loaded(server: Server) -> set[str]:
    """The loaded models according to the metrics."""
    lines = server.client.get("/metrics").text.splitlines()
    served = [line for line in lines if line.startswith("anomaly_model_info{") and line.endswith(" 1.0")]
    return {line.split('"')[1] for line in served}


def health(server: Server) -> Health:
    return Health.model_validate(server.client.get("/health").json())


def test_preload_loads_models_and_reports_damaged_ones(service: Server) -> None:
    deadline = time.monotonic() + 60
    while not health(service).refused or len(health(service).models) < 2:  # both are tried at the same time
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = health(service)
    assert found.status == "ok"
    assert {model.name for model in found.models} >= {"m00", "m01"}
    ((name, reason),) = [(each.name, each.reason) for each in found.refused]
    assert name == "m07"
    assert "model.pt has" in reason


def test_max_loaded_models_limits_memory_while_all_models_score(service: Server) -> None:
    good = [name for name in NAMES if name != "m07"]
    for name in good * 2:
        assert score(service, name) == 200
        found = {model.name for model in health(service).models}
        assert name in found
        assert "m00" in found
        assert len(found) <= 4
        assert loaded(service) == found
    refused = service.client.post("/score?model=m07", files={"file": PNG})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert "model.pt has" in refused.json()["detail"]
    assert service.client.get("/v2/models/m03/ready").status_code == 200
    assert {"m03", "m00"} <= loaded(service)


def test_simultaneous_first_uses_all_succeed(service: Server) -> None:
    wanted = [name for name in NAMES if name != "m07"] * 3
    with ThreadPoolExecutor(11) as pool:
        assert set(pool.map(lambda name: score(service, name), wanted)) == {200}
    assert len(loaded(service)) <= 4


def test_overloaded_model_does_not_block_another(service: Server) -> None:
    async def scenario() -> None:
        overload = asyncio.create_task(
            crowd(service.port, [post(PNG, path="/score?include=&model=slow")], connections=100, seconds=4)
        )
        await asyncio.sleep(1)
        quiet = await crowd(
            service.port, [post(PNG, path="/score?include=&model=m01")], connections=2, seconds=2, rate=20
        )
        overloaded = await overload
        assert set(overloaded.statuses()) == {200, 429}
        assert quiet.statuses().keys() == {200}
        # An image waits for at most one batch of the other model, not for its queue of sixteen batches.
        assert quiet.latency(0.5) < 0.5 * overloaded.latency(0.5)

    assert score(service, "slow") == 200
    assert score(service, "m01") == 200
    asyncio.run(scenario())


def test_models_are_listed_in_pages(service: Server) -> None:
    all_names = sorted([*NAMES, "slow"])
    seen: list[str] = []
    after, pages = "", 0
    while True:
        page = Models.model_validate(
            service.client.get("/models", params={"limit": 5, **({"after": after} if after else {})}).json()
        )
        names = sorted({*(card.name for card in page.models), *(each.name for each in page.refused)})
        assert len(names) <= 5
        assert page.total == len(all_names)
        seen, pages = seen + names, pages + 1
        if page.next is None:
            break
        assert page.next == names[-1]
        after = page.next
    assert (seen, pages) == (all_names, 3)
    whole = Models.model_validate(service.client.get("/models").json())
    assert (whole.next, len(whole.models), [each.name for each in whole.refused]) == (None, 13, ["m07"])


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=many", f"after={'x' * 65}"])
def test_invalid_paging_is_422_and_a_page_after_the_last_is_empty(service: Server, query: str) -> None:
    response = service.client.get(f"/models?{query}")
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    empty = Models.model_validate(service.client.get("/models?after=zzz").json())
    assert (empty.models, empty.next, empty.total) == ([], None, 13)


def test_a_page_reads_only_its_own_manifests(root: Path) -> None:
    read: list[str] = []

    class RecordingStore(ModelStore):
        def manifest(self, name: str, version: str | None = None) -> Manifest:
            read.append(name)
            return super().manifest(name, version)

    engine = Engine(max_batch=1, queue_size=1, max_pixels=1)
    registry = ModelRegistry(RecordingStore(root), engine, "m00", max_loaded=2)
    page = _page_of(registry, {}, 3, "m04")
    engine.close()
    assert read == [card.name for card in page.models] == ["m05", "m06", "m07"]
    assert page.next == "m07"


def test_a_page_is_short_whatever_is_asked_for(tmp_path: Path) -> None:
    """Three hundred cards were two megabytes, which were read and written while other requests waited."""
    store = ModelStore(tmp_path)
    for number in range(60):
        store.publish(*make_bundle(f"m{number:02}"))
    engine = Engine(max_batch=1, queue_size=1, max_pixels=1)
    registry = ModelRegistry(store, engine, "m00", max_loaded=2)
    page = _page_of(registry, {}, 500, "")
    engine.close()
    assert (len(page.models), page.next, page.total) == (50, "m49", 60)
