"""Exports a published version to ONNX or OpenVINO, for programs without torch, with its card.

The exported model takes ``image``, (N, C, H, W) float32 in [0, 1] at the model's input size, and returns what the
bundle returns: ``reconstruction``, ``mse``, ``score`` and, if the model has them, ``error_map`` and ``scope``. Each
export is checked with the golden image, in the runtime that the format is made for, against the bundle.
"""

import base64
import io
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from app.files.writing import replace_file
from app.inference.bundles import torchscript
from app.inference.bundles.bundle import MODEL_FILE
from app.inference.bundles.manifest import Manifest
from app.inference.bundles.store import ModelStore
from app.inference.images.decoding import open_image
from training.errors import TrainingError
from training.features.whole_batch import WholeBatch
from training.model.interest import RegionOfInterest

Format = Literal["onnx", "openvino"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
SUFFIXES: Final[Mapping[Format, str]] = {"onnx": ".onnx", "openvino": ".xml"}
TOLERANCE: Final = 1e-3
"""Largest difference to the bundle's outputs for the golden image; of scores above 1, relative to them."""

_PACKAGES: Final = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}
_OPSET: Final = 17
_INPUT: Final = "image"
_OUTPUTS: Final = ("reconstruction", "mse", "score", "error_map", "scope")
_MAX_PIXELS: Final = 10**9  # the golden image is part of a verified bundle

Run = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]


def export(store: ModelStore, name: str, version: str, form: Format, path: Path) -> float:
    """Writes an exported model.

    Args:
        store: has the version, which is verified first.
        name: of the model.
        version: of the model.
        form: ``onnx``: one file; ``openvino``: ``path`` and a file with the suffix ``.bin`` beside it.
        path: where to write.

    Returns:
        The largest difference to the bundle's outputs for the golden image.

    Raises:
        InferenceError: the version failed verification.
        TrainingError: a package is missing, the model cannot be exported, or the export gives other numbers.
        OSError: the file cannot be written.
    """
    for package in _PACKAGES[form]:
        if find_spec(package) is None:
            raise TrainingError(
                f"{package} is not installed; install the packages for exports: pip install '.[export]'"
            )
    manifest = store.load(name, version).manifest
    model = torchscript.load_plain(store.file(manifest, MODEL_FILE))
    if manifest.training.backbone is not None:
        model = _of_features(model, manifest)
    golden = open_image(base64.b64decode(manifest.golden.image), max_pixels=_MAX_PIXELS).decode(manifest.input).tensor
    images = golden.unsqueeze(0)
    with torch.inference_mode():
        expected = [output.numpy() for output in model(images)]
    content = _to_onnx(model, images, manifest, len(expected))
    if form == "onnx":
        difference = _difference(_onnx_runtime(content), images.numpy(), expected)
        replace_file(path, content)
        return difference
    converted = _to_openvino(content, manifest)
    difference = _difference(_openvino(converted), images.numpy(), expected)
    _save_openvino(converted, path)
    return difference


def _of_features(model: Any, manifest: Manifest) -> torch.nn.Module:
    """A model of the recipe ``features`` in operators that can be exported."""
    size, grid = (manifest.input.height, manifest.input.width), manifest.error_map
    if manifest.region_of_interest is None or grid is None:
        return torchscript.compiled(WholeBatch(model, size))
    whole = WholeBatch(model.model, size)
    cells = (grid.height, grid.width)
    return torchscript.compiled(RegionOfInterest(whole, model.inside, cells))


def card(manifest: Manifest) -> dict[str, str]:
    """What a program needs to use the model, as texts; ``manifest`` is the whole card as JSON."""
    return {
        "name": manifest.name,
        "version": manifest.version,
        "threshold": repr(manifest.threshold),
        "false_alarm_rate": repr(manifest.false_alarm_rate),
        "input": manifest.input.model_dump_json(),
        "manifest": manifest.to_bytes().decode(),
    }


def _to_onnx(model: torch.nn.Module, images: torch.Tensor, manifest: Manifest, outputs: int) -> bytes:
    import onnx  # noqa: PLC0415  an extra

    exporter: Any = torch.onnx  # half annotated
    file, names = io.BytesIO(), [_INPUT, *_OUTPUTS[:outputs]]
    for operator, symbolic in _SYMBOLICS.items():
        exporter.register_custom_op_symbolic(operator, symbolic, _OPSET)
    try:
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            # This exporter is the only one that reads TorchScript; torch deprecates both. Numbers are checked below.
            warnings.simplefilter("ignore")
            exporter.export(
                model, (images,), file, input_names=names[:1], output_names=names[1:], opset_version=_OPSET,
                dynamic_axes={each: {0: "images"} for each in names}, dynamo=False,
            )  # fmt: skip
    except RuntimeError as error:  # torch's own errors derive from it
        raise TrainingError(f"{manifest.name} cannot be exported: {str(error).splitlines()[0]}") from error
    finally:
        for operator in _SYMBOLICS:
            exporter.unregister_custom_op_symbolic(operator, _OPSET)
    proto = onnx.load_from_string(file.getvalue())
    onnx.helper.set_model_props(proto, card(manifest))
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString()
    return content


def _diff(graph: Any, values: Any, order: Any, dim: Any, prepend: Any, append: Any) -> Any:  # noqa: ARG001
    """``torch.diff`` of first order, which the exporter lacks."""
    helper: Any = torch.onnx.symbolic_helper  # half annotated
    axis = helper._get_const(dim, "i", "dim")
    later = helper._slice_helper(graph, values, axes=[axis], starts=[1], ends=[2**63 - 1])
    return graph.op("Sub", later, helper._slice_helper(graph, values, axes=[axis], starts=[0], ends=[-1]))


def _reduced(graph: Any, values: Any, size: Any) -> Any:
    """``adaptive_avg_pool2d`` to a size that is not constant: to half of it, linear interpolation is the mean."""
    helper: Any = torch.onnx.symbolic_helper
    sides = [helper._unsqueeze_helper(graph, side, [0]) for side in helper._unpack_list(size)]
    batch = helper._slice_helper(graph, graph.op("Shape", values), axes=[0], starts=[0], ends=[2])
    none = graph.op("Constant", value_t=torch.empty(0))
    return graph.op(
        "Resize", values, none, none, graph.op("Concat", batch, *sides, axis_i=0),
        coordinate_transformation_mode_s="half_pixel", mode_s="linear",
    )  # fmt: skip


_SYMBOLICS: Final = {"aten::diff": _diff, "aten::adaptive_avg_pool2d": _reduced}


def _onnx_runtime(content: bytes) -> Run:
    import onnxruntime  # noqa: PLC0415  an extra

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {_INPUT: images})


def _to_openvino(content: bytes, manifest: Manifest) -> Any:
    import openvino  # noqa: PLC0415  an extra

    model = openvino.convert_model(io.BytesIO(content))
    for key, value in card(manifest).items():
        model.set_rt_info(value, ["anomaly", key])
    return model


def _openvino(model: Any) -> Run:
    import openvino  # noqa: PLC0415  an extra

    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: [np.asarray(output) for output in compiled(images).values()]


def _save_openvino(model: Any, path: Path) -> None:
    import openvino  # noqa: PLC0415  an extra

    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise TrainingError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error


def _difference(run: Run, images: NDArray[np.float32], expected: list[NDArray[np.float32]]) -> float:
    """The largest difference of any output, also if the image is in a batch.

    Raises:
        TrainingError: it is above the tolerance.
    """
    largest = 0.0
    for count in (1, 3):
        outputs = run(np.repeat(images, count, axis=0))
        for output, wanted in zip(outputs, expected, strict=True):
            scale = max(1.0, float(np.abs(wanted).max()))
            largest = max(largest, float(np.abs(output - wanted).max()) / scale)
    if not largest <= TOLERANCE:
        raise TrainingError(
            f"the export differs from the model by {largest:.3g} for the golden image; nothing was written"
        )
    return largest
