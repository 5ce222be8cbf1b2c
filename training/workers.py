"""Work on images in parallel: one image per thread is faster than several threads for one image."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import torch

_PIXELS_AT_ONCE: Final = 1_000_000  # the values between the layers of a pretrained network take 300 bytes for each

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, *, at_once: int | None = None
) -> Iterator[Result]:
    """The results in the order of the items, for functions that compute with torch, without gradients.

    Args:
        work: called in one of the threads.
        items: its arguments.
        threads: number of threads that compute.
        at_once: number of items that are worked on at the same time, at most ``threads``, which they share; None: all
            that can be.
    """
    workers = min(threads, at_once or threads)

    @torch.inference_mode()
    def run(item: Item) -> Result:
        return work(item)

    # torch keeps the number of its own threads per thread: this does not change that of the caller.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
        yield from pool.map(run, items)


def most_at_once(height: int, width: int) -> int:
    """The number of images of this size that a network may work on at the same time without taking much memory."""
    return max(1, _PIXELS_AT_ONCE // (height * width))


def available_cores() -> int:
    """The number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
