"""The scoring use case over HTTP, which ``/score`` and ``/v2`` share."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import pytest

from app.api.application import _services
from app.api.errors import ShuttingDown
from app.api.queries import Sensitivity
from app.api.request_state import open_request_state, request_state
from app.api.scoring import _decode_seconds, answer, operating_point, require_running
from app.api.services import Services
from app.api.settings import Settings
from app.inference.bundles.store import ModelStore
from app.inference.decisions.conformal import OperatingPoint
from app.inference.errors import Overloaded, UnreadableImage
from app.inference.images.model_input import DecodedImage
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.batch_scorer import Rejected
from app.inference.serving.memory import Memory
from app.inference.serving.scoring import Results
from app.inference.serving.trials import Trials
from tests.support import SPEC, encode, gradient, make_bundle

PNG = encode(gradient())
WHITE = DecodedImage(np.ones((1, 8, 8), np.float32))

Use: TypeAlias = Callable[[Services, ServedModel], Awaitable[Any]]
Run: TypeAlias = Callable[[Use], Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a coroutine function with the services of an application and its loaded model."""
    # Coverage walks the stack and all modules after a fork: a minute in a process that has run many tests.
    monkeypatch.setattr(Trials, "start", lambda _: None)
    monkeypatch.setattr(Trials, "require", lambda *_: None)
    ModelStore(tmp_path).publish(*make_bundle("m"))
    services = _services(Settings(model_store=tmp_path, model="m", queue_size=2, max_files=2))

    def run_with_model(use: Use) -> Any:
        async def scenario() -> Any:
            await services.registry.load_default()
            try:
                with await services.registry.get(None) as model:
                    return await use(services, model)
            finally:
                services.trials.close()
                services.engine.close()

        return asyncio.run(scenario())

    return run_with_model


def new_scope() -> dict[str, Any]:
    scope: dict[str, Any] = {}
    open_request_state(scope, "r1", Memory(2**20).claim("a"))
    return scope


def unchanged(results: Results) -> Results:
    return results


def test_answer_admits_images_until_they_are_rendered(run: Run) -> None:
    async def use(services: Services, model: ServedModel) -> None:
        point, engine = model.bundle.operating_point(), services.engine
        admitted = await answer(services, new_scope(), model, [PNG, PNG], point, lambda _: engine.admitted)
        assert (admitted, engine.admitted) == (2, 0)
        with pytest.raises(Overloaded):
            await answer(services, new_scope(), model, [PNG] * 3, point, unchanged)

    run(use)


def test_answer_stores_the_summary_for_the_request_log(run: Run) -> None:
    async def use(services: Services, model: ServedModel) -> None:
        scope = new_scope()
        assert request_state(scope).scored is None
        point = model.bundle.operating_point()
        results = await answer(services, scope, model, [PNG, b"not an image"], point, unchanged)
        summary = request_state(scope).scored
        assert summary is not None
        assert (summary.model, summary.scores) == ("m", [results.scored[0].score])
        assert summary.rejected == ["unreadable-image"]

    run(use)


def test_request_state_is_added_to_the_state_of_the_server() -> None:
    scope: dict[str, Any] = {"state": {"server": 1}}
    state = open_request_state(scope, "r1", Memory(2**20).claim("a"))
    assert request_state(scope) is state
    assert (state.request_id, state.scored, scope["state"]["server"]) == ("r1", None, 1)


@pytest.mark.parametrize("option", [True, False])
def test_answer_passes_encode_and_diagnose_on(run: Run, monkeypatch: pytest.MonkeyPatch, option: bool) -> None:
    async def use(services: Services, model: ServedModel) -> Results:
        point = model.bundle.operating_point()
        return await answer(
            services, new_scope(), model, [PNG, WHITE], point, unchanged, encode=option, diagnose=option
        )

    monkeypatch.setattr("app.inference.serving.batch_scorer._MUCH_LOWER", float("inf"))  # every anomaly looks inverted
    results = run(use)
    assert all((each.png is not None) is option for each in results.scored)
    assert results.point.is_anomaly(results.scored[1].score)
    assert any("looks inverted" in warning for warning in results.scored[1].warnings) is option


def test_require_running_refuses_requests_while_draining(run: Run) -> None:
    async def use(services: Services, _: ServedModel) -> None:
        require_running(services)
        services.draining.begun = True
        with pytest.raises(ShuttingDown):
            require_running(services)

    run(use)


def test_strict_thresholds_are_computed_outside_the_event_loop() -> None:
    """A sum over up to millions of scores, again for every other rate, would stop all requests."""
    threads: list[int] = []

    class Strict:
        class manifest:  # noqa: N801
            guarantee = "strict"

        def operating_point(self, rate: float | None, threshold: float | None) -> OperatingPoint:
            threads.append(threading.get_ident())
            return OperatingPoint(rate, threshold or 1)

    class Model:
        bundle = Strict()

    def thread_for(**query: float) -> int:
        asyncio.run(operating_point(cast(ServedModel, Model()), Sensitivity(**query)))
        return threads[-1]

    assert thread_for(false_alarm_rate=0.1) != threading.get_ident()
    assert thread_for(threshold=1) == thread_for() == threading.get_ident()


def test_large_images_count_by_the_time_to_decode_them() -> None:
    assert _decode_seconds(PNG, SPEC) == 0
    assert _decode_seconds(Rejected(UnreadableImage("no image")), SPEC) == 0
    assert _decode_seconds(encode(gradient(2000, 2000)), SPEC) > 0.01
    assert _decode_seconds(encode(gradient(255, 255)), SPEC) == 0
    assert _decode_seconds(encode(gradient(300, 300)), SPEC) > 0
