"""The commands and examples of README and user guides run, and the answer that README shows is the real one."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import API, OPERATIONS, README, TRAINING, Document
from tests.support import ROOT, WITHOUT_COVERAGE, Server, running_server

pytestmark = pytest.mark.no_cover  # commands of users; the tests of their packages count

GUIDES = [README, API, OPERATIONS, TRAINING]
RUN_HERE = ("curl", ".venv/bin/python")
RESULTS = {
    README: ["lying.png", "model_store/my-parts/CURRENT"],
    API: ["samples.csv", "seen/normal", "seen/anomaly"],
    OPERATIONS: ["keys/ours.pub"],
    TRAINING: ["model_store/my-parts/CURRENT"],
}


@pytest.fixture(scope="module", params=GUIDES, ids=str)
def guide(request: pytest.FixtureRequest) -> Document:
    document: Document = request.param
    return document


@pytest.fixture(scope="module")
def checkout(guide: Document, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a checkout, with its own model store; for README, with a user's images."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("app", "training", "docs"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "model_store", folder / "model_store")
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    if guide == README:
        script = next(command for command in TRAINING.commands if "load_digits" in command)
        subprocess.run(["bash", "-euc", script], cwd=folder, env=WITHOUT_COVERAGE, timeout=600, check=True)
    return folder


@pytest.fixture(scope="module")
def service(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "log"
    with running_server(checkout / "model_store", log, measure_coverage=False) as running:
        yield running


def run(command: str, checkout: Path, service: Server) -> str:
    version = (checkout / "model_store" / "mnist-5" / "CURRENT").read_text().strip()
    script = (
        command.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
        .replace("-m app.client", f"-m app.client --url http://127.0.0.1:{service.port}")
        .replace("VERSION", version)
        .replace("curl ", "curl -sS --fail --noproxy '*' ", 1)
    )
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=checkout,
        env=WITHOUT_COVERAGE,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def test_every_command_runs_in_its_order(guide: Document, checkout: Path, service: Server) -> None:
    commands = [command for command in guide.commands if command.startswith(RUN_HERE)]
    assert len(commands) >= 3
    printed = {command: run(command, checkout, service) for command in commands}
    for command, answer in printed.items():
        if command.startswith("curl") and "test/anomaly/" in command:  # what a guide shows as an anomaly is found
            assert [each["verdict"] for each in json.loads(answer)["results"]] == ["anomaly"], command
    for result in RESULTS[guide]:
        assert (checkout / result).exists(), result
    if guide == API:
        assert len((checkout / "samples.csv").read_text().splitlines()) > 3
    elif guide == README:
        assert (checkout / "lying.png").read_bytes().startswith(b"\x89PNG")


def test_own_images_follow_the_command_that_installs_what_they_need() -> None:
    commands = [command for command in README.commands if "my-parts" in command or "make train" in command]
    install, *examples = (command.split() for command in commands)
    assert install == ["make", "train", "DATA=digits"]
    assert {words[2] for words in examples} == {"training", "app.client"}
    steps = subprocess.run(["make", "-nB", *install[1:]], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"--extra client", "--extra training"} <= set(re.findall("--extra [a-z]+", steps))


@pytest.mark.parametrize("guide", [README], indirect=True, ids=str)
def test_the_json_answer_is_the_real_one(guide: Document, checkout: Path, service: Server) -> None:
    (shown,) = map(json.loads, guide.code("json"))
    answer = json.loads(run(next(each for each in guide.commands if each.startswith("curl")), checkout, service))
    for mine, theirs in zip(shown["results"], answer["results"], strict=True):
        for number in ("mse", "score", "p_value"):
            assert mine.pop(number) == pytest.approx(theirs.pop(number), rel=1e-3)
    assert shown == answer


@pytest.mark.parametrize("guide", [API], indirect=True, ids=str)
@pytest.mark.parametrize(
    ("begin", "printed"),
    [("import numpy", ["[ True  True]"]), ("from app.client", ["five.png", "normal", "lying-five.png", "anomaly"])],
)
def test_the_python_examples_run(guide: Document, service: Server, begin: str, printed: list[str]) -> None:
    (example,) = (code for code in guide.code("python") if code.startswith(begin))
    done = subprocess.run(
        [sys.executable, "-c", example.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")],
        cwd=ROOT / "app" / "api" / "static" / "samples",
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for word in printed:
        assert word in done.stdout


@pytest.mark.parametrize("guide", [API], indirect=True, ids=str)
def test_every_route_and_status_is_documented(guide: Document, service: Server) -> None:
    paths = service.client.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        if not path.startswith("/v2/models/{name}/versions"):
            for method in operations:
                assert f"`{method.upper()} {path}`" in guide.text, path
        for operation in operations.values():
            for status in operation["responses"]:
                assert status.startswith(("2", "3")) or f"\n| {status} |" in guide.text, (path, status)
