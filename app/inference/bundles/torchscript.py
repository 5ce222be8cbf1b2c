"""The one module that touches ``torch.jit``: a scored autoencoder to archive bytes, and back.

TorchScript is the promised format although torch deprecates it, so just that warning is silenced, here.
An archive is code that runs with our rights: callers of :func:`load` must have checked where it comes from.
"""

import io
import platform
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import torch

_FIXED_TIME: Final = (1980, 1, 1, 0, 0, 0)
_MEASURED_ON: Final = ("x86_64", "AMD64")
_CONVOLUTIONS: Final = ("aten::conv1d", "aten::conv2d", "aten::conv_transpose2d", "aten::_convolution")
_BATCH: Final = 32  # images that the layout is best for; it serves all


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

    The debug records that torch adds name source files of this machine; they are left out, and equal weights and code
    give equal bytes in one process. Between processes torch writes a layer's constants in another order.
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
        frozen = torch.jit.freeze(scripted)
        if not _pack(frozen.graph):
            return torch.jit.optimize_for_inference(scripted)
        return _OneOrMany(torch.jit.optimize_for_inference(scripted), torch.jit.optimize_for_inference(frozen))


class _OneOrMany:
    """A dense network in two forms, each faster than the other: for one image, and for batches."""

    def __init__(self, one: ScoringModel, many: ScoringModel) -> None:
        self._one = one
        self._many = many

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return (self._many if images.shape[0] > 1 else self._one)(images)


def _pack(graph: Any) -> bool:
    """Lays the weights of a dense network's layers out as oneDNN's kernels read them, as torch's own compiler does.

    torch multiplies by way of MKL, which copies all weights into such a layout for every batch: for small batches that
    is as much work as the product, and it drives all else from the processor's caches.

    Args:
        graph: of a frozen module; changed in place.

    Returns:
        Whether there was something to pack. Where convolutions do most of the work it gains nothing.
    """
    layers = [node for node in graph.findAllNodes("aten::linear") if node.inputsAt(1).toIValue() is not None]
    if not layers or platform.machine() not in _MEASURED_ON or any(map(graph.findAllNodes, _CONVOLUTIONS)):
        return False
    for layer in layers:
        images, weight, bias = layer.inputs()
        graph.setInsertPoint(layer)
        packed = graph.insertNode(graph.create("prim::Constant"))
        packed.t_("value", torch.ops.mkldnn._reorder_linear_weight(weight.toIValue(), _BATCH))
        no_scalars = graph.insertNode(graph.create("prim::ListConstruct", [], 1)).output()
        no_scalars.setType(torch.ListType(torch.OptionalType(torch.NumberType.get())))
        activation, algorithm = graph.insertConstant("none"), graph.insertConstant("")
        inputs = [images, packed.output(), bias, activation, no_scalars, algorithm]
        product = graph.insertNode(graph.create("mkldnn::_linear_pointwise", inputs, 1))
        layer.output().replaceAllUsesWith(product.output())
        graph.setInsertPoint(graph.return_node())  # not at what is gone: later passes of torch would follow it there
        layer.destroy()
    return True
