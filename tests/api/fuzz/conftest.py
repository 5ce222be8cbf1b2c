"""Untrusted input for the real server.

For any input, the response is not a 5xx, errors are problem documents, no connection hangs, and the log has no
traceback. Afterwards the same process still computes the same score for a valid image.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import hypothesis
import pytest
from hypothesis import HealthCheck

from app.api.schemas.scoring import Problem, ScoreAnswer
from app.inference.bundles.store import ModelStore
from tests import hostile, process_memory, valid_images
from tests.support import Server, encode, gradient, make_bundle, running_server

VALID_PNG = encode(gradient(), "PNG")
SEEDS = valid_images.seeds()
CORPUS = hostile.corpus()
MIB = 2**20
MAX_BODY_BYTES = 4 * MIB


def examples(count: int) -> hypothesis.settings:
    """Hypothesis settings: the same examples in every run, without a deadline per example."""
    return hypothesis.settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )


def short_id(value: object) -> str:
    """The id of a test case, since cases can have megabytes."""
    return repr(value)[:50]


@dataclass(frozen=True)
class Target:
    """The tested server, and the score of the valid image."""

    server: Server
    score: float


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("fuzz")
    ModelStore(directory / "store").publish(*make_bundle("m"))
    with running_server(
        directory / "store", directory / "log", measure_coverage=False, model="m", log_format="json",
        request_timeout_s=10, max_body_bytes=MAX_BODY_BYTES, max_pixels=MIB, max_files=8,
    ) as server:  # fmt: skip
        yield Target(server, valid_score(server))
        assert process_memory.peak_bytes(server.process.pid) < 1000 * MIB


@pytest.fixture(autouse=True)
def unaffected(target: Target) -> Iterator[None]:
    """Asserts after each test that the same process returns the same score and has logged no internal error."""
    before = target.server.log.stat().st_size
    yield
    assert target.server.process.poll() is None
    assert valid_score(target.server) == target.score
    with target.server.log.open() as log:
        log.seek(before)
        logged = log.read()
    assert "Traceback" not in logged
    assert not re.search(r'"status":5|"level":"(error|critical)".*"exception"', logged)


def valid_score(server: Server) -> float:
    response = server.client.post("/score?include=", content=VALID_PNG, headers={"Content-Type": "image/png"})
    assert response.status_code == 200, response.text
    return ScoreAnswer.model_validate_json(response.content).results[0].score  # type: ignore[union-attr]


def assert_no_server_error(status: int, media_type: str | None, body: bytes) -> None:
    """Asserts that the response is not a 5xx, and a problem document if it is an error."""
    assert 200 <= status < 500, (status, body)
    if status >= 400:
        assert media_type == "application/problem+json", body
        problem = Problem.model_validate_json(body)
        assert problem.status == status
        assert problem.type.startswith("urn:problem-type:")
        assert problem.title
        assert problem.detail
        assert problem.instance


def checked(response: httpx.Response) -> httpx.Response:
    """The response, after :func:`assert_no_server_error`."""
    assert_no_server_error(response.status_code, response.headers.get("content-type"), response.content)
    return response
