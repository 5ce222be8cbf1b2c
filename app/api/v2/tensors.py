"""Tensors of the Open Inference Protocol: request bodies → images, and results → response bodies.

With the binary tensor extension, tensors follow the JSON object as bytes, little-endian and row-major, in the order in
which the object lists them. A header contains the length of the JSON object.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from starlette.datastructures import Headers

from app.api.errors import InvalidInference, TooManyFiles, validation_reasons
from app.api.http.body.json_images import decode_base64
from app.api.v2.schemas import INPUT, InferenceRequest, InputTensor, OutputName
from app.inference.bundles.manifest import Manifest
from app.inference.errors import UnreadableImage
from app.inference.images.model_input import DecodedImage, InputSpec
from app.inference.serving.scoring import Results

JSON_LENGTH_HEADER: Final = "Inference-Header-Content-Length"

_INPUT_TYPES: Final[Mapping[str, np.dtype[Any]]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
_JSON_TYPES: Final[Mapping[str, set[type]]] = {"FP32": {int, float}, "UINT8": {int}}
_MAX_LEVEL: Final = 255
_LENGTH: Final = struct.Struct("<I")
# Millions of empty lists, or of members that nobody reads, would take seconds and a gigabyte to parse.
_MAX_OTHERS: Final = 1000  # lists and objects, members, and values in addition to those of the images
_BYTES_PER_ELEMENT: Final = 64  # of a parsed list


@dataclass(frozen=True)
class Output:
    """An output tensor: its data type, its shape per image, which is None if the model has none, and its values."""

    datatype: str
    dtype: np.dtype[Any]
    shape: Callable[[Manifest], tuple[int, ...] | None]
    values: Callable[[Results], Any]


def _scalar(_: Manifest) -> tuple[int, ...]:
    return ()


def _scope(manifest: Manifest) -> tuple[int, ...] | None:
    return None if manifest.scope is None else ()


def _grid(manifest: Manifest) -> tuple[int, ...] | None:
    grid = manifest.error_map
    return None if grid is None else (1, grid.height, grid.width)


# FP64, so that the numbers are bit-identical to those of POST /score.
OUTPUTS: Final[Mapping[OutputName, Output]] = {
    "reconstruction": Output(
        "FP32",
        np.dtype("<f4"),
        lambda manifest: manifest.input.shape,
        lambda results: torch.stack([each.reconstruction for each in results.scored]).numpy(),
    ),
    "mse": Output("FP64", np.dtype("<f8"), _scalar, lambda results: [each.mse for each in results.scored]),
    "score": Output("FP64", np.dtype("<f8"), _scalar, lambda results: [each.score for each in results.scored]),
    "p_value": Output("FP64", np.dtype("<f8"), _scalar, lambda results: [each.p_value for each in results.scored]),
    "is_anomaly": Output(
        "BOOL",
        np.dtype("?"),
        _scalar,
        lambda results: [results.point.is_anomaly(each.score) for each in results.scored],
    ),
    "error_map": Output(
        "FP32",
        np.dtype("<f4"),
        _grid,
        lambda results: np.stack([each.error_maps[each.row] for each in results.scored if each.error_maps is not None]),
    ),
    "out_of_scope": Output(
        "BOOL", np.dtype("?"), _scope, lambda results: [results.out_of_scope(each) for each in results.scored]
    ),
}


def outputs_of(manifest: Manifest) -> dict[OutputName, tuple[int, ...]]:
    """The outputs of a model, with their shapes for one image."""
    shapes = {name: output.shape(manifest) for name, output in OUTPUTS.items()}
    return {name: shape for name, shape in shapes.items() if shape is not None}


def require_outputs(request: InferenceRequest, manifest: Manifest) -> None:
    """Checks that the model has the outputs that a request asks for.

    Raises:
        InvalidInference: it has not.
    """
    if missing := {each.name for each in request.outputs} - set(outputs_of(manifest)):
        raise InvalidInference(f"the model has no output {missing.pop()}: it was published before models had one")


def read_request(headers: Headers, body: bytes, spec: InputSpec, max_images: int) -> tuple[InferenceRequest, bytes]:
    """Parses the JSON object of a body, and returns it with the bytes that follow it.

    Args:
        headers: of the request.
        body: of the request.
        spec: the model's input.
        max_images: most images in one request.

    Raises:
        InvalidInference: the body or the header is invalid.
    """
    length = _json_length(headers.get(JSON_LENGTH_HEADER), len(body))
    text, binary = body[:length], body[length:]
    channels, height, _ = spec.shape
    if text.count(b"[") + text.count(b"{") > _MAX_OTHERS + max_images * (1 + channels * (1 + height)):
        raise InvalidInference("the request has more lists and objects than its images need")
    if text.count(b",") > _MAX_OTHERS + max_images * math.prod(spec.shape):
        raise InvalidInference("the request has more values than its images need")
    if text.count(b":") > _MAX_OTHERS + max_images:  # one in each data URI
        raise InvalidInference("the request has more members than it needs")
    try:
        return InferenceRequest.model_validate(orjson.loads(text)), binary
    except orjson.JSONDecodeError as error:
        raise InvalidInference(f"the request is not a JSON object: {error}") from error
    except ValidationError as error:
        raise InvalidInference(validation_reasons(error, "the request")[0]) from error


def parsed_bytes(headers: Headers, body: bytes) -> int:
    """The memory that the JSON object of a body takes when it is parsed, at most.

    Raises:
        InvalidInference: the header is invalid.
    """
    length = _json_length(headers.get(JSON_LENGTH_HEADER), len(body))
    return length + _BYTES_PER_ELEMENT * body.count(b",", 0, length)


def _json_length(header: str | None, body_length: int) -> int:
    if header is None:
        return body_length
    is_number = header.isascii() and header.isdigit() and len(header) <= len(str(body_length))
    if not is_number or int(header) > body_length:
        raise InvalidInference(f"{JSON_LENGTH_HEADER} is {header[:40]!r}, but the body has {body_length} bytes")
    return int(header)


def read_images(
    request: InferenceRequest, binary: bytes, spec: InputSpec, max_images: int
) -> Sequence[bytes | DecodedImage]:
    """The images of a request: image files, or images of the model's input size.

    Args:
        request: has one input.
        binary: the bytes after its JSON object.
        spec: the model's input.
        max_images: most images in one request.

    Raises:
        InvalidInference: a shape, a size or a value is invalid or does not match the model.
        TooManyFiles: more images than one request may carry.
    """
    tensor = request.inputs[0]
    count, *shape = tensor.shape
    is_files = tensor.datatype == "BYTES"
    if tuple(shape) not in ({(), (1,)} if is_files else {spec.shape}):
        expected = "files have [-1] or [-1, 1]" if is_files else f"the model takes {[-1, *spec.shape]}"
        raise InvalidInference(f"{INPUT} has the shape {tensor.shape}, {expected}")
    if count > max_images:
        raise TooManyFiles(f"one request may carry {max_images} images, this one has {count}")
    if tensor.parameters.binary_data_size is None and binary:
        raise InvalidInference(f"{len(binary)} bytes follow the JSON object, but the input has no binary_data_size")
    if is_files:
        return _listed_files(tensor) if tensor.parameters.binary_data_size is None else _binary_files(tensor, binary)
    return [DecodedImage(pixels) for pixels in _pixels(tensor, binary)]


def _pixels(tensor: InputTensor, binary: bytes) -> NDArray[Any]:
    """(N, C, H, W) at the model's input size, uint8 or float32 in [0, 1]."""
    values = _listed_values(tensor) if tensor.parameters.binary_data_size is None else _binary_values(tensor, binary)
    if tensor.datatype == "UINT8":
        return values.reshape(tensor.shape)
    if not ((values >= 0) & (values <= 1)).all():  # NaN fails too
        raise InvalidInference(f"{INPUT} has values outside [0, 1]")
    return values.astype(np.float32).reshape(tensor.shape)


def _binary_values(tensor: InputTensor, binary: bytes) -> NDArray[Any]:
    dtype, size = _INPUT_TYPES[tensor.datatype], tensor.parameters.binary_data_size
    expected = int(np.prod(tensor.shape)) * dtype.itemsize
    if size != expected:
        raise InvalidInference(
            f"{INPUT} has a binary_data_size of {size}, {tensor.datatype} of {tensor.shape} takes {expected}"
        )
    _require_binary(tensor, binary)
    return np.frombuffer(binary, dtype)


def _binary_files(tensor: InputTensor, binary: bytes) -> list[bytes]:
    """Files, each after its length."""
    _require_binary(tensor, binary)
    files, end = [], 0
    for _ in range(tensor.shape[0]):
        begin = end + _LENGTH.size
        end = begin + (_LENGTH.unpack_from(binary, end)[0] if begin <= len(binary) else 0)
        if end > len(binary):
            break
        files.append(binary[begin:end])
    if len(files) < tensor.shape[0] or end != len(binary):
        raise InvalidInference(
            f"the {len(binary)} bytes of {INPUT} are not {tensor.shape[0]} files, each after its length in 4 bytes"
        )
    return files


def _require_binary(tensor: InputTensor, binary: bytes) -> None:
    size = tensor.parameters.binary_data_size
    if tensor.data is not None:
        raise InvalidInference(f"{INPUT} has both data and a binary_data_size")
    if len(binary) != size:
        raise InvalidInference(
            f"{len(binary)} bytes follow the JSON object, but its binary_data_size is {size}; "
            f"{JSON_LENGTH_HEADER} must be the length of the JSON object"
        )


def _listed_files(tensor: InputTensor) -> list[bytes]:
    """Files in a JSON list of base64 texts."""
    texts = _elements(tensor)
    if not set(map(type, texts)) <= {str}:
        raise InvalidInference(f"{INPUT} has data that are not all base64 texts")
    try:
        return [decode_base64(text) for text in texts]
    except UnreadableImage as error:
        raise InvalidInference(f"{INPUT}: {error}") from error


def _listed_values(tensor: InputTensor) -> NDArray[Any]:
    """The values of a JSON list."""
    values = _elements(tensor)
    if not set(map(type, values)) <= _JSON_TYPES[tensor.datatype]:  # NumPy would convert booleans and text
        raise InvalidInference(f"{INPUT} has data that are not all numbers of the type {tensor.datatype}")
    if tensor.datatype == "UINT8" and not (min(values) >= 0 and max(values) <= _MAX_LEVEL):
        raise InvalidInference(f"{INPUT} has values outside 0 to {_MAX_LEVEL}")
    with np.errstate(over="ignore"):  # too large values become infinite, which _pixels refuses
        return np.array(values, _INPUT_TYPES[tensor.datatype])


def _elements(tensor: InputTensor) -> list[Any]:
    """The elements of a JSON list that is flat, or nested like the shape."""
    if not isinstance(tensor.data, list):
        raise InvalidInference(f"{INPUT} has neither a list of data nor a binary_data_size")
    flat = bool(tensor.data) and not isinstance(tensor.data[0], list)
    rows: list[Any] = [tensor.data]
    for length in [int(np.prod(tensor.shape))] if flat else tensor.shape:
        if not all(isinstance(row, list) and len(row) == length for row in rows):
            raise InvalidInference(f"{INPUT} has data that do not match the shape {tensor.shape}, flat or nested")
        rows = list(chain.from_iterable(rows))
    return rows


def write_answer(request: InferenceRequest, results: Results) -> tuple[bytes, int | None]:
    """The response body, and the length of its JSON object if tensors follow it.

    Args:
        request: lists the outputs, and which of them are binary.
        results: of its images, which were all scored.
    """
    manifest, point = results.bundle.manifest, results.point
    requested = {each.name: each.parameters.binary_data for each in request.outputs}
    requested = requested or dict.fromkeys(outputs_of(manifest))
    described, tensors = [], []
    for name, binary in requested.items():
        output = OUTPUTS[name]
        values = np.ascontiguousarray(output.values(results), output.dtype)
        description = {"name": name, "datatype": output.datatype, "shape": values.shape}
        if request.parameters.binary_data_output if binary is None else binary:
            tensors.append(values.tobytes())
            described.append({**description, "parameters": {"binary_data_size": values.nbytes}})
        else:
            described.append({**description, "data": values.ravel()})
    answer = {
        "model_name": manifest.name,
        "model_version": manifest.version,
        **({} if request.id is None else {"id": request.id}),
        "parameters": {
            "threshold": point.threshold,
            "false_alarm_rate": point.false_alarm_rate,
            **({} if request.parameters.fdr is None else {"fdr": request.parameters.fdr}),
        },
        "outputs": described,
    }
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join((head, *tensors)), len(head) if tensors else None
