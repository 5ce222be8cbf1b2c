"""The one module that touches ``torch.jit``: a scored autoencoder to archive bytes, and back.

TorchScript is the promised format although torch deprecates it, so just that warning is silenced, here.
An archive is code that runs with our rights: callers of :func:`load` must have checked where it comes from.
"""

import io
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import torch

_FIXED_TIME: Final = (1980, 1, 1, 0, 0, 0)


class ScoringModel(Protocol):
    """What a bundle's ``model.pt`` does."""

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, C, H, W) float32 in [0, 1] → reconstruction of that shape, mse (N,), score (N,)."""


@contextmanager
def _no_deprecation_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
        yield


def dump(model: torch.nn.Module) -> bytes:
    """Scripts a module, as it is in evaluation mode, into a TorchScript archive.

    The debug records that torch adds name source files of this machine; they are left out, and equal
    weights and code give equal bytes.
    """
    with _no_deprecation_warning():
        scripted = torch.jit.script(model.cpu().eval())
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer)
    return _without_debug_records(buffer.getvalue())


def _without_debug_records(archive: bytes) -> bytes:
    slim = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(slim, "w") as target:
        for record in source.infolist():
            if not record.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(record.filename, _FIXED_TIME), source.read(record))
    return slim.getvalue()


def load(archive: bytes) -> ScoringModel:
    """Loads a trusted archive onto the CPU, frozen and with its weights laid out for inference.

    Raises:
        RuntimeError: torch cannot read the archive.
    """
    with _no_deprecation_warning():
        scripted = torch.jit.load(io.BytesIO(archive), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        return torch.jit.optimize_for_inference(scripted)
