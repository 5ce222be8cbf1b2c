"""Trials of versions in child processes: a model that hangs or takes all memory is refused and harms nobody.

Collected by test_trials.py, in a process of its own.
"""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.inference.bundles.store import ModelStore
from app.inference.errors import BundleRejected
from app.inference.serving import trials as module
from app.inference.serving.trials import SHIPPED, Trials
from tests.hostile_models import Allocating, Hanging, HangingInBatches, write_version
from tests.support import ROOT, make_bundle

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")


@pytest.fixture
def trials() -> Iterator[Trials]:
    tried = Trials(seconds=30, max_batch=0)
    tried.start()
    yield tried
    tried.close()


def digest_of(directory: Path) -> str:
    return hashlib.sha256((directory / "manifest.json").read_bytes()).hexdigest()


def refusal(tried: Trials, directory: Path) -> str:
    with pytest.raises(BundleRejected) as caught:
        tried.require(directory, digest_of(directory))
    return str(caught.value)


def start_requiring(tried: Trials, directory: Path) -> tuple[threading.Thread, list[OSError]]:
    """A thread that requires a version, and the errors of that."""
    errors: list[OSError] = []

    def require() -> None:
        try:
            tried.require(directory, digest_of(directory))
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=require)
    thread.start()
    return thread, errors


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_valid_version_passes_once(trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = ModelStore(tmp_path).publish(*make_bundle("m"))
    trials.require(directory, digest_of(directory))
    monkeypatch.setattr(trials, "_try", lambda *_: pytest.fail("tried again"))
    trials.require(directory, digest_of(directory))


@pytest.mark.parametrize("batches_only", [False, True])
def test_hanging_model_is_refused_at_the_deadline(tmp_path: Path, batches_only: bool) -> None:
    if batches_only:
        directory = ModelStore(tmp_path).publish(*make_bundle("m", network=HangingInBatches()))
    else:
        directory = write_version(tmp_path, "m", Hanging())
    tried = Trials(seconds=2, max_batch=0)
    began = time.monotonic()
    assert refusal(tried, directory) == "model.pt did not load and score a few images within 2 s"
    assert time.monotonic() - began < 2 + module._MARGIN_S
    tried.close()


def test_model_that_takes_all_memory_is_refused(trials: Trials, tmp_path: Path) -> None:
    assert refusal(trials, write_version(tmp_path, "m", Allocating())).startswith("model.pt takes more than 1,024 MiB")


def test_failed_verification_is_reported_with_its_reason(trials: Trials, tmp_path: Path) -> None:
    directory = ModelStore(tmp_path).publish(*make_bundle("m"))
    (directory / "model.pt").write_bytes(b"oops")
    assert refusal(trials, directory).startswith("model.pt has 4 bytes, but manifest.json lists ")


def test_version_that_is_replaced_during_its_trial_is_refused(trials: Trials, tmp_path: Path) -> None:
    directory = ModelStore(tmp_path).publish(*make_bundle("m"))
    with pytest.raises(BundleRejected, match="was changed while the version was loaded"):
        trials.require(directory, "0" * 64)


def test_child_that_is_killed_is_an_error_and_not_a_refusal(tmp_path: Path) -> None:
    """The system kills it if memory runs out, which is not the fault of the model. The next poll tries again."""
    before = children_of(os.getpid())
    tried = Trials(seconds=30, max_batch=0)
    tried.start()
    (nursery,) = set(children_of(os.getpid())) - set(before)
    directory = write_version(tmp_path, "m", Hanging())
    thread, errors = start_requiring(tried, directory)
    while not (children := children_of(nursery)):
        time.sleep(0.01)
    while Path(f"/proc/{children[0]}/oom_score_adj").read_text().strip() != "1000":
        time.sleep(0.01)
    os.kill(children[0], signal.SIGKILL)
    thread.join(10)
    assert "ended from outside" in str(errors[0])
    tried.close()


def test_closing_ends_a_running_trial_at_once(tmp_path: Path) -> None:
    tried = Trials(seconds=60, max_batch=0)
    directory = write_version(tmp_path, "m", Hanging())
    thread, errors = start_requiring(tried, directory)
    time.sleep(1)
    tried.close()
    thread.join(5)
    assert not thread.is_alive()
    assert errors


def test_nursery_that_died_is_replaced(tmp_path: Path) -> None:
    directory = ModelStore(tmp_path).publish(*make_bundle("m"))
    before = children_of(os.getpid())
    tried = Trials(seconds=30, max_batch=0)
    tried.start()
    (nursery,) = set(children_of(os.getpid())) - set(before)
    os.kill(nursery, signal.SIGKILL)
    tried.require(directory, digest_of(directory))
    tried.close()


def test_processes_of_a_service_share_what_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = ModelStore(tmp_path / "store").publish(*make_bundle("m"))
    first, second = (Trials(seconds=30, max_batch=0, shared=tmp_path / "tried") for _ in range(2))
    first.require(directory, digest_of(directory))
    monkeypatch.setattr(second, "_try", lambda *_: pytest.fail("tried again"))
    second.require(directory, digest_of(directory))
    first.close()
    second.close()


def test_shipped_model_is_not_tried() -> None:
    """`make train` adds versions to that store, which are tried."""
    assert {digest_of(manifest.parent) for manifest in (ROOT / "model_store").glob("*/*/manifest.json")} >= SHIPPED


def test_nursery_ends_with_its_parent() -> None:
    program = (
        "import os, time; from app.inference.serving.trials import Trials;"
        "tried = Trials(seconds=1, max_batch=0); tried.start();"
        "print(open(f'/proc/self/task/{os.getpid()}/children').read(), flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    nursery = Path("/proc") / done.stdout.strip()
    deadline = time.monotonic() + 60
    while nursery.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
