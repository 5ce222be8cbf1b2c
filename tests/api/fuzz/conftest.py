"""Untrusted bytes against the real server, which they must not harm.

Whatever comes, the answer is not a 5xx, an error is a problem document, no connection hangs, no traceback gets into
the log, and afterwards the same process still gives a good image the right score.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import hypothesis
import pytest
from hypothesis import HealthCheck

from app.api.schemas import Problem, ScoreAnswer
from app.inference.bundles.store import ModelStore
from tests import hostile
from tests.support import Server, encode, gradient, make_bundle, running_server

GOOD = encode(gradient(), "PNG")
SEEDS = hostile.seeds()
CORPUS = hostile.corpus()
MIB = 2**20
MAX_BODY_BYTES = 4 * MIB


def examples(count: int) -> hypothesis.settings:
    """The same examples in every run; how long one takes is asserted where it matters."""
    return hypothesis.settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )


def brief(value: object) -> str:
    """The name of a case; the cases themselves may have megabytes."""
    return repr(value)[:50]


@dataclass(frozen=True)
class Target:
    """The server under fire, and what it said of the good image before."""

    server: Server
    score: float


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("fuzz")
    ModelStore(directory / "store").publish(*make_bundle("m"))
    with running_server(
        directory / "store", directory / "log", counted=False, model="m", log_format="json", request_timeout_s=10,
        max_body_bytes=MAX_BODY_BYTES, max_pixels=MIB, max_files=8,
    ) as server:  # fmt: skip
        yield Target(server, good_score(server))
        assert hostile.peak_bytes(server.process.pid) < 1000 * MIB


@pytest.fixture(autouse=True)
def unharmed(target: Target) -> Iterator[None]:
    """After each test the same process answers as before, and its log tells of no defect."""
    before = target.server.log.stat().st_size
    yield
    assert target.server.process.poll() is None
    assert good_score(target.server) == target.score
    with target.server.log.open() as log:
        log.seek(before)
        written = log.read()
    assert "Traceback" not in written
    assert not re.search(r'"status":5|"level":"(error|critical)".*"exception"', written)


def good_score(server: Server) -> float:
    response = server.client.post("/score?include=", content=GOOD, headers={"Content-Type": "image/png"})
    assert response.status_code == 200, response.text
    return ScoreAnswer.model_validate_json(response.content).results[0].score  # type: ignore[union-attr]


def well_behaved(status: int, media_type: str | None, body: bytes) -> None:
    """Not a 5xx, and a problem document where it is an error."""
    assert 200 <= status < 500, (status, body)
    if status >= 400:
        assert media_type == "application/problem+json", body
        problem = Problem.model_validate_json(body)
        assert problem.status == status
        assert problem.type.startswith("urn:problem-type:")
        assert problem.title
        assert problem.detail
        assert problem.instance


def behaved(response: httpx.Response) -> httpx.Response:
    well_behaved(response.status_code, response.headers.get("content-type"), response.content)
    return response
