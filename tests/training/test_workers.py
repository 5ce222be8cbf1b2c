"""Work in parallel: order, the number of items at once, and the threads that each has."""

import threading
import time

import pytest
import torch

from training.workers import in_parallel, most_at_once


@pytest.mark.parametrize(("at_once", "most", "threads_each"), [(None, 4, 1), (2, 2, 2), (9, 4, 1)])
def test_items_at_once_share_the_threads(at_once: int | None, most: int, threads_each: int) -> None:
    lock, running, peak = threading.Lock(), 0, 0

    def work(item: int) -> tuple[int, int, bool]:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return item, torch.get_num_threads(), torch.is_inference_mode_enabled()

    before = torch.get_num_threads()
    assert list(in_parallel(work, range(12), 4, at_once=at_once)) == [(item, threads_each, True) for item in range(12)]
    assert peak == most
    assert torch.get_num_threads() == before


def test_few_large_images_at_once() -> None:
    assert [most_at_once(side, side) for side in (28, 320, 512, 1024, 2048)] == [1275, 9, 3, 1, 1]
