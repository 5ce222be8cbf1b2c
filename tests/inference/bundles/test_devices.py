"""Names of devices."""

import pytest
import torch

from app.inference.bundles.devices import PROCESSOR, device_named
from app.inference.errors import DeviceUnavailable


def test_auto_is_the_processor_without_a_graphics_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto") == device_named("cpu") == PROCESSOR


@pytest.mark.parametrize(("name", "expected"), [("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1")])
def test_graphics_processors_compute_in_single_precision(
    monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert device_named(name) == torch.device(expected)
    assert not torch.backends.cudnn.allow_tf32


def test_missing_device_is_named_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceUnavailable, match=r"no cuda:1: torch finds 1 graphics processors, .* without CUDA"):
        device_named("cuda:1")
