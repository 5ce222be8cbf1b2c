"""Activates in forked children that are killed at random instants; run by test_store in a process of its own.

Usage: python -m tests.inference.bundles.activate_and_die STORE KILLS. Prints how many activations were cut short.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from app.inference.bundles.store import ModelStore
from tests.support import make_bundle


def main(root: Path, kills: int) -> None:
    torch.set_num_threads(1)
    store = ModelStore(root)
    for seed in (1, 2):
        store.publish(*make_bundle("m", seed=seed))
    versions = store.versions("m")
    for _ in range(4):  # the last one is warm, as the children's are
        began = time.perf_counter()
        store.activate("m", versions[0])
        duration = time.perf_counter() - began
    chance = random.Random(0)
    cut_short = 0
    for attempt in range(10 * kills):
        if cut_short == kills:
            break
        before, wanted = store.current("m"), versions[attempt % 2]
        child = os.fork()
        if child == 0:
            store.activate("m", wanted)
            os._exit(0)
        time.sleep(chance.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        cut_short += os.WIFSIGNALED(status)
        current = store.current("m")
        assert current in {before, wanted}, current
        store.load("m", current)  # raises if anything of it is broken
    store.activate("m", versions[0])
    assert store.current("m") == versions[0]
    leftovers = [path.name for path in (root / "m").iterdir() if path.name.startswith(".publishing")]
    assert not leftovers, leftovers
    assert store.versions("m") == versions
    sys.stdout.write(f"{cut_short}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
