"""TorchScript archives: the same results after loading, and nothing of this machine in them."""

import io
import os
import platform
import re
import subprocess
import sys
import zipfile

import pytest
import torch

from app.inference.bundles import torchscript
from app.inference.bundles.devices import PROCESSOR
from app.inference.errors import Overloaded
from tests.support import ROOT
from training.model.autoencoders import ConvAutoencoder, DenseAutoencoder
from training.model.scoring_rules import Mse, ScoredAutoencoder


def _model() -> ScoredAutoencoder:
    torch.manual_seed(3)
    return ScoredAutoencoder(DenseAutoencoder((1, 8, 8), (16,), 4, linear_code=False), Mse())


def test_loaded_archive_gives_the_results_of_the_module() -> None:
    model, images = _model(), torch.rand(5, 1, 8, 8)
    expected = model.eval()(images)
    got = torchscript.load(torchscript.dump(model))(images)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_device_takes_and_returns_values_of_the_processor() -> None:
    model, images = _model(), torch.rand(5, 1, 8, 8)
    expected, archive = model.eval()(images), torchscript.dump(model)
    if torch.cuda.is_available():
        loaded = torchscript.load(archive, torch.device("cuda"))
        assert isinstance(loaded, torchscript.OnDevice)
    else:
        loaded = torchscript.OnDevice(torchscript.load(archive), PROCESSOR)
    for one, other in zip(loaded(images), expected, strict=True):
        assert one.is_cpu
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_exhausted_memory_of_a_device_refuses_the_batch() -> None:
    def full(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise torch.OutOfMemoryError

    with pytest.raises(Overloaded, match="the memory of cpu is in use"):
        torchscript.OnDevice(full, torch.device("cpu"))(torch.zeros(1))


def test_single_images_and_batches_use_different_kernels_with_equal_results() -> None:
    model, images = _model(), torch.rand(33, 1, 8, 8)
    loaded = torchscript.load(torchscript.dump(model))
    batch, singles = loaded(images), [loaded(image[None]) for image in images]
    for of_batch, of_singles in zip(batch, zip(*singles, strict=True), strict=True):
        torch.testing.assert_close(of_batch, torch.cat(of_singles), rtol=1e-5, atol=1e-6)
    if platform.machine() == "x86_64":
        assert _kernels(loaded, images) >= {"mkldnn::_linear_pointwise"}
        assert not {kernel for kernel in _kernels(loaded, images[:1]) if kernel.startswith("mkldnn")}


def test_convolutional_networks_are_not_packed() -> None:
    model, images = ScoredAutoencoder(ConvAutoencoder((1, 16, 16), (4, 8), 4), Mse()), torch.rand(3, 1, 16, 16)
    expected = model.eval()(images)
    loaded = torchscript.load(torchscript.dump(model))
    for one, other in zip(loaded(images), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert "mkldnn::_linear_pointwise" not in _kernels(loaded, images)


def test_linear_layers_without_bias_are_packed() -> None:
    class WithoutBias(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(64, 64, bias=False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            rebuilt: torch.Tensor = self.layer(images.flatten(1)).reshape(images.shape)
            return rebuilt

    model, images = ScoredAutoencoder(WithoutBias(), Mse()), torch.rand(3, 1, 8, 8)
    expected = model.eval()(images)
    for one, other in zip(torchscript.load(torchscript.dump(model))(images), expected, strict=True):
        torch.testing.assert_close(one, other)


_LOAD = """
import sys, torch
from app.inference.bundles import torchscript
from app.inference.bundles.devices import PROCESSOR
from app.inference.errors import Overloaded
model = torchscript.load(sys.stdin.buffer.read())
for size in (1, 2, 3):
    model(torch.rand(size, 1, 8, 8))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's MALLOC_PERTURB_")
def test_loading_does_not_use_freed_memory() -> None:
    """A wrong change of the graph crashes the process sometimes, and nearly always if freed memory is overwritten."""
    archive = torchscript.dump(_model())
    for fill_byte in ("255", "165", "1", "90"):
        environment = {**os.environ, "MALLOC_PERTURB_": fill_byte}
        run = subprocess.run([sys.executable, "-c", _LOAD], cwd=ROOT, env=environment, input=archive, check=False)
        assert run.returncode == 0, fill_byte


def _kernels(model: torchscript.ScoringModel, images: torch.Tensor) -> set[str]:
    with torch.inference_mode(), torch.profiler.profile() as profile:
        model(images)
    return {event.key for event in profile.key_averages()}


def test_archive_contains_no_source_paths() -> None:
    archive = torchscript.dump(_model())
    with zipfile.ZipFile(io.BytesIO(archive)) as records:
        names = records.namelist()
        content = b"\n".join(records.read(name) for name in names)
    assert not [name for name in names if "debug" in name]
    assert not re.search(rb"(/[\w.-]+){2,}\.py", content)
    # torch itself writes such paths.
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(_model()), buffer)
    with zipfile.ZipFile(buffer) as records:
        assert any(re.search(rb"(/[\w.-]+){2,}\.py", records.read(name)) for name in records.namelist())


def test_equal_weights_give_equal_bytes() -> None:
    assert torchscript.dump(_model()) == torchscript.dump(_model())
