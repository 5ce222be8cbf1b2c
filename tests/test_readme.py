"""Every command of the README runs, and what it shows is what they print."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.api.settings import PREFIX, Settings
from tests.support import NOT_COUNTED, ROOT, Server, running_server

pytestmark = pytest.mark.no_cover  # the server's lines are counted, not those of what asks it

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """One entry per command, a here-document included."""
    blocks = "".join(block for language, block in BLOCKS if not language)
    command = r"^(?:make|docker|curl|\.venv/bin/python) (?:.*<<'END'\n(?:.*\n)*?END$|.*)"
    return re.findall(command, blocks, re.MULTILINE)


HERE = [command for command in commands() if command.startswith(("curl", ".venv"))]
ELSEWHERE = [command for command in commands() if command not in HERE]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a checkout, with a store of its own."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("app", "training", "docs"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "model_store", folder / "model_store")
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def service(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(checkout / "model_store", tmp_path_factory.mktemp("log") / "log") as running:
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
        env=NOT_COUNTED,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_commands() -> None:
    assert len(HERE) > 10
    assert len(ELSEWHERE) >= 4


def test_every_command_runs_in_its_order(checkout: Path, service: Server) -> None:
    for command in HERE:
        run(command, checkout, service)
    assert (checkout / "lying.png").read_bytes().startswith(b"\x89PNG")
    assert len((checkout / "samples.csv").read_text().splitlines()) > 3
    assert list((checkout / "seen").rglob("*.png"))
    assert (checkout / "model_store" / "my-parts" / "CURRENT").exists()


def test_the_answer_shown_is_the_answer_given(checkout: Path, service: Server) -> None:
    shown = next(json.loads(block) for language, block in BLOCKS if language == "json")
    answer = json.loads(run(HERE[0], checkout, service))
    for mine, theirs in zip(shown["results"], answer["results"], strict=True):
        for number in ("mse", "score", "p_value"):
            assert mine.pop(number) == pytest.approx(theirs.pop(number), rel=1e-3)
    assert shown == answer


@pytest.mark.parametrize(
    ("begin", "printed"),
    [("import numpy", ["[ True  True]"]), ("from app.client", ["five.png", "normal", "lying-five.png", "anomaly"])],
)
def test_the_python_examples_run(checkout: Path, service: Server, begin: str, printed: list[str]) -> None:
    example = next(block for language, block in BLOCKS if language == "python" and block.startswith(begin))
    script = example.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT / "app" / "api" / "static" / "samples",
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for word in printed:
        assert word in done.stdout


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?\bmake ([a-z-]+)", README))))
def test_every_target_of_make_exists(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_services_of_compose_exist() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    for command in ELSEWHERE:
        if command.startswith("docker compose run"):
            name = command.split()[4]
            assert f"\n  {name}:\n" in compose


def test_the_settings_are_all_there_with_their_defaults() -> None:
    rows = dict(re.findall(rf"^\| `{PREFIX}(\w+)` \| ([^|]+) \|", README, re.MULTILINE))
    assert {name.lower() for name in rows} == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        shown = rows[name.upper()].strip("` ")
        assert shown in {str(field.default), "none"}, name


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
