"""Work on images in parallel: one image per thread is faster than several threads for one image."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """The results in the order of the items, for functions that compute with torch, without gradients.

    Args:
        work: called in one of the threads.
        items: its arguments.
        threads: number of threads; each computes with one core.
    """

    @torch.inference_mode()
    def run(item: Item) -> Result:
        return work(item)

    # torch keeps the number of its own threads per thread: this does not change that of the caller.
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(run, items)
