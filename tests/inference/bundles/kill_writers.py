"""Writes to a store in forked children that are killed at random times, and checks the store after each one.

``test_store`` runs it in a process of its own.

Usage: python -m tests.inference.bundles.kill_writers publish|activate STORE KILLS. Prints the number of killed writers.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path

import torch

from app.inference.bundles.store import ModelStore
from tests.support import make_bundle

Write = tuple[str, Callable[[], object]]
"""The version that is current after a write, and the write."""


def publications(store: ModelStore) -> Iterator[Write]:
    while True:
        manifest, files = make_bundle("m")
        yield manifest.version, partial(store.publish, manifest, files)


def activations(store: ModelStore) -> Iterator[Write]:
    for version in cycle([store.publish(*make_bundle("m", seed=seed)).name for seed in (1, 2)]):
        yield version, partial(store.activate, "m", version)


def main(operation: str, root: Path, kills: int) -> None:
    torch.set_num_threads(1)
    store = ModelStore(root)
    writes = {"publish": publications, "activate": activations}[operation](store)
    for _ in range(5):  # the last run is warm, as the children are
        _, write = next(writes)
        began = time.perf_counter()
        write()
        duration = time.perf_counter() - began
    delays = random.Random(0)
    killed = 0
    for _ in range(10 * kills):
        if killed == kills:
            break
        version, write = next(writes)
        current, versions = store.current("m"), store.versions("m")
        killed += is_killed(write, delays.uniform(0, duration))
        assert store.current("m") in {current, version}, store.current("m")
        assert set(versions) <= set(store.versions("m")) <= {*versions, version}
        store.load("m", store.current("m"))  # raises if the version is incomplete
    version, write = next(writes)
    write()
    assert store.current("m") == version
    leftovers = [path.name for path in (root / "m").iterdir() if path.name.startswith(".publishing")]
    assert not leftovers, leftovers
    sys.stdout.write(f"{killed}\n")


def is_killed(write: Callable[[], object], delay_s: float) -> bool:
    """Runs a write in a child and kills the child after a delay; False if it finished before."""
    child = os.fork()
    if child == 0:
        write()
        os._exit(0)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
