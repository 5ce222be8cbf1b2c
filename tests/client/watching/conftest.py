"""A folder with digits that come, and the command that watches it."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.client.watching import command
from tests.client.conftest import Digits
from tests.support import ROOT, WITHOUT_COVERAGE

Watch = Callable[..., int]


@pytest.fixture
def incoming(tmp_path: Path, digit_files: Digits) -> Path:
    """A folder with a five and a zero."""
    folder = tmp_path / "in"
    (folder / "line 2").mkdir(parents=True)
    (folder / "five.png").write_bytes(digit_files[5][0])
    (folder / "line 2" / "zero.png").write_bytes(digit_files[0][0])
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def watch(url: str, incoming: Path, archive: Path) -> Watch:
    """Scores what is in the folder, and ends."""

    def run(*options: object) -> int:
        words = [incoming, "--archive", archive, "--url", url, "--settle", 0.05, "--once", *options]
        return command.main([*map(str, words)])

    return run


def journal(archive: Path) -> list[dict[str, Any]]:
    """The complete lines so far."""
    path = archive / "verdicts.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def check(archive: Path, images: dict[str, bytes]) -> list[dict[str, Any]]:
    """Each image has one line, and is in its place; nothing else is there."""
    lines = journal(archive)
    assert sorted(line["file"] for line in lines) == sorted(images)
    assert files(archive) == sorted(["verdicts.jsonl", *(line["archived"] for line in lines)])
    for line in lines:
        content = (archive / line["archived"]).read_bytes()
        assert content == images[line["file"]]
        assert hashlib.sha256(content).hexdigest() == line["sha256"]
    return lines


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def running(*words: object, status: int = 0) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own; must end with a status when the block has ended."""
    run = subprocess.Popen(
        [sys.executable, "-m", "app.client", "watch", *map(str, words)],
        cwd=ROOT, env=WITHOUT_COVERAGE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield run
        assert run.wait(60) == status
    finally:
        run.kill()
        run.communicate()
