"""Saves a scored autoencoder as a TorchScript archive, and loads it. No other module uses ``torch.jit``.

TorchScript is the file format of published models, although torch deprecates it; only that warning is silenced.
An archive is code that runs with the rights of this process: verify its origin before calling :func:`load`.
"""

import io
import platform
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import torch

from app.inference.bundles.devices import PROCESSOR
from app.inference.errors import Overloaded

_FIXED_TIME: Final = (1980, 1, 1, 0, 0, 0)
_MEASURED_ON: Final = ("x86_64", "AMD64")
_CONVOLUTIONS: Final = ("aten::conv1d", "aten::conv2d", "aten::conv_transpose2d", "aten::_convolution")
_BATCH: Final = 32  # the batch size that the weight layout is chosen for; any size works


class ScoringModel(Protocol):
    """The interface of a bundle's ``model.pt``."""

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, C, H, W) float32 in [0, 1] → reconstruction of that shape, mse (N,), score (N,).

        Since schema version 2 also the error map (N, 1, h, w); and if the manifest says so, scope (N,), above 1 for
        images that do not look like the training images.
        """


@contextmanager
def _no_deprecation_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
        yield


def dump(model: torch.nn.Module) -> bytes:
    """Compiles a module in evaluation mode to a TorchScript archive.

    The debug records that torch adds contain source paths of this machine; they are removed. Within one process, equal
    weights and code give equal bytes. Between processes they may not: torch orders a layer's constants differently.
    """
    with _no_deprecation_warning():
        buffer = io.BytesIO()
        torch.jit.save(compiled(model.cpu()), buffer)
    return _without_debug_records(buffer.getvalue())


def compiled(model: torch.nn.Module) -> torch.nn.Module:
    """A module in evaluation mode, compiled."""
    with _no_deprecation_warning():
        scripted: torch.nn.Module = torch.jit.script(model.eval())
    return scripted


def trace(module: torch.nn.Module, example: torch.Tensor) -> torch.nn.Module:
    """Records what a module does with an example, for modules that cannot be scripted; its shape is then fixed."""
    with _no_deprecation_warning(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit._trace.TracerWarning)
        traced: torch.nn.Module = torch.jit.trace(module.eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
    return traced


def optimized(traced: torch.nn.Module) -> torch.nn.Module:
    """A traced module, frozen and with its layers fused, for inference only."""
    with _no_deprecation_warning():
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced.eval()))


def _without_debug_records(archive: bytes) -> bytes:
    stripped = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(stripped, "w") as target:
        for record in source.infolist():
            if not record.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(record.filename, _FIXED_TIME), source.read(record))
    return stripped.getvalue()


def load(archive: bytes, device: torch.device = PROCESSOR) -> ScoringModel:
    """Loads a trusted archive, frozen and optimised for inference.

    Args:
        archive: as :func:`dump` writes it.
        device: where it computes. It takes and returns values in the processor's memory, wherever that is.

    Raises:
        RuntimeError: torch cannot read the archive, or the device has no room for it.
    """
    with _no_deprecation_warning():
        scripted = torch.jit.load(io.BytesIO(archive), map_location=device).eval()  # type: ignore[no-untyped-call]
        frozen: Any = torch.jit.freeze(scripted)
        if device.type != PROCESSOR.type:
            return OnDevice(frozen, device)
        if frozen.graph.findAllNodes("prim::Loop"):
            # Images one at a time: the optimisation does not reach into loops, and its conversions cost a tenth.
            of_loop: ScoringModel = frozen
            return of_loop
        if not _pack_weights(frozen.graph):
            return torch.jit.optimize_for_inference(scripted)
        return _BySize(torch.jit.optimize_for_inference(scripted), torch.jit.optimize_for_inference(frozen))


def load_plain(archive: bytes) -> torch.nn.Module:
    """Loads a trusted archive as it was saved, to convert it to other formats; :func:`load` is faster to run.

    Raises:
        RuntimeError: torch cannot read the archive.
    """
    with _no_deprecation_warning():
        model: torch.nn.Module = torch.jit.load(io.BytesIO(archive), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    return model


class OnDevice:
    """A network on a device: a batch is copied there, and its results back.

    Args:
        network: computes with values in the memory of the device.
        device: any.
    """

    def __init__(self, network: ScoringModel, device: torch.device) -> None:
        self._network = network
        self._device = device

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As :class:`ScoringModel`.

        Raises:
            Overloaded: the memory of the device is in use.
        """
        # From pinned memory, the device copies without the processor.
        sent = images.pin_memory() if self._device.type == "cuda" else images
        try:
            return tuple(output.cpu() for output in self._network(sent.to(self._device, non_blocking=True)))
        except torch.OutOfMemoryError as error:  # other processes may use the device, too
            torch.cuda.empty_cache()
            raise Overloaded(f"the memory of {self._device} is in use") from error


class _BySize:
    """A dense network in two forms: one is faster for a single image, the other for batches."""

    def __init__(self, single: ScoringModel, batch: ScoringModel) -> None:
        self._single = single
        self._batch = batch

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self._batch if images.shape[0] > 1 else self._single)(images)


def _pack_weights(graph: Any) -> bool:
    """Stores the weights of linear layers in the blocked layout of oneDNN's kernels, as torch's own compiler does.

    By default torch multiplies with MKL, which copies all weights into such a layout for every batch. For small batches
    the copy takes as long as the product and evicts everything else from the processor's caches.

    Args:
        graph: of a frozen module; changed in place.

    Returns:
        Whether the graph was changed: not without linear layers, not with convolutions, which dominate the time, and
        only on processors where this was measured.
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
        graph.setInsertPoint(graph.return_node())  # must not point at the node that is destroyed: use after free
        layer.destroy()
    return True
