"""The size of batches follows from measurements."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from app.inference.bundles.bundle import Bundle
from app.inference.serving import warm_up as module
from app.inference.serving.warm_up import LARGE_BATCH, SMALL_BATCH, Pace, warm_up


@pytest.mark.parametrize(
    ("device", "seconds", "largest"),
    [
        ("cpu", lambda size: 1.0, SMALL_BATCH),
        ("cpu", lambda size: 0.03 * size, 3),
        ("cpu", lambda size: 0.2 * size, 1),
        ("cuda", lambda size: 1.0, 8 * LARGE_BATCH),
        ("cuda", lambda size: max(1.0, size / 128), 2 * SMALL_BATCH),
        ("cuda", lambda size: 0.03 * size, 3),
    ],
    ids=["cpu", "cpu, slow", "cpu, slower", "idle units", "few idle units", "no idle units"],
)
def test_batches_are_as_large_as_they_pay(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, device: str, seconds: Callable[[int], float], largest: int
) -> None:
    monkeypatch.setattr(module, "_seconds", lambda _, size: seconds(size))
    pace = warm_up(replace(bundle, device=torch.device(device)), 0)
    assert pace == Pace(largest, seconds(largest))


def test_given_size_is_kept(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_seconds", lambda *_: 1.0)
    assert warm_up(replace(bundle, device=torch.device("cuda")), 7) == Pace(7, 1.0)
