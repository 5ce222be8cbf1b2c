"""Tensors of the Open Inference Protocol: JSON and binary bodies → torch, and scored images → JSON and binary bodies.

The binary tensor extension puts tensors behind the JSON object, little-endian and row-major, in the order in which
the object names them; a header says where the object ends.
"""

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

from app.api.errors import InvalidInference, TooManyFiles, UnsupportedMediaType
from app.api.v2.schemas import INPUT, InferenceRequest, InputTensor, OutputName
from app.inference.images.decoding import InputSpec, unit_values
from app.inference.serving.batch_scorer import Scored

JSON_LENGTH_HEADER: Final = "Inference-Header-Content-Length"

_INPUT_TYPES: Final[Mapping[str, np.dtype[Any]]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
_NUMBERS: Final[Mapping[str, set[type]]] = {"FP32": {int, float}, "UINT8": {int}}
_BRIGHTEST: Final = 255
# Millions of empty lists would take seconds to make, and a gigabyte. So many may there be beside the images' own.
_FURTHER_LISTS: Final = 1000


@dataclass(frozen=True)
class Output:
    """An output that the model has: its data type, its shape for each image, where its values come from."""

    datatype: str
    dtype: np.dtype[Any]
    shape: Callable[[InputSpec], tuple[int, ...]]
    values: Callable[[Sequence[Scored], float], Any]


def _single(_: InputSpec) -> tuple[int, ...]:
    return ()


# Doubles, because POST /score answers with doubles: both tell the same to the last bit.
OUTPUTS: Final[Mapping[OutputName, Output]] = {
    "reconstruction": Output(
        "FP32",
        np.dtype("<f4"),
        lambda spec: spec.shape,
        lambda scored, _: torch.stack([each.reconstruction for each in scored]).numpy(),
    ),
    "mse": Output("FP64", np.dtype("<f8"), _single, lambda scored, _: [each.mse for each in scored]),
    "score": Output("FP64", np.dtype("<f8"), _single, lambda scored, _: [each.score for each in scored]),
    "p_value": Output("FP64", np.dtype("<f8"), _single, lambda scored, _: [each.p_value for each in scored]),
    "is_anomaly": Output(
        "BOOL", np.dtype("?"), _single, lambda scored, threshold: [each.score > threshold for each in scored]
    ),
}


def read_request(headers: Headers, body: bytes, spec: InputSpec, max_images: int) -> tuple[InferenceRequest, bytes]:
    """The request's JSON object, and the bytes behind it.

    Args:
        headers: the request's.
        body: the whole of it.
        spec: what the model takes.
        max_images: the most in one request.

    Raises:
        InvalidInference: the body, or the header that says where the object ends, makes no sense.
        UnsupportedMediaType: the body is compressed.
    """
    if (encoding := headers.get("content-encoding", "identity").lower()) != "identity":
        raise UnsupportedMediaType(f"send the body as it is, without the Content-Encoding {encoding[:40]}")
    length = _json_length(headers.get(JSON_LENGTH_HEADER), len(body))
    text, behind = body[:length], body[length:]
    channels, height, _ = spec.shape
    if text.count(b"[") + text.count(b"{") > _FURTHER_LISTS + max_images * (1 + channels * (1 + height)):
        raise InvalidInference("the request has more lists and objects than images can need")
    try:
        return InferenceRequest.model_validate(orjson.loads(text)), behind
    except orjson.JSONDecodeError as error:
        raise InvalidInference(f"the request is not a JSON object: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the request"
        raise InvalidInference(f"{where}: {first['msg']}") from error


def _json_length(announced: str | None, body_length: int) -> int:
    if announced is None:
        return body_length
    if not (announced.isascii() and announced.isdigit()) or len(announced) > len(str(body_length)):
        raise InvalidInference(f"{JSON_LENGTH_HEADER} is {announced[:40]!r}, the body has {body_length} bytes")
    if int(announced) > body_length:
        raise InvalidInference(f"{JSON_LENGTH_HEADER} is {announced}, the body has only {body_length} bytes")
    return int(announced)


def read_images(request: InferenceRequest, behind: bytes, spec: InputSpec, max_images: int) -> torch.Tensor:
    """The images as the model takes them.

    Args:
        request: whose one input they are.
        behind: the bytes behind its JSON object.
        spec: what the model takes.
        max_images: the most in one request.

    Returns:
        (N, C, H, W) float32 in [0, 1].

    Raises:
        InvalidInference: a shape, a size or a value that does not fit the model or the request's own words.
        TooManyFiles: more images than one request may carry.
    """
    tensor = request.inputs[0]
    count, *shape = tensor.shape
    if tuple(shape) != spec.shape:
        raise InvalidInference(f"{INPUT} has the shape {tensor.shape}, the model takes {[-1, *spec.shape]}")
    if count > max_images:
        raise TooManyFiles(f"one request may carry {max_images} images, this one has {count}")
    values = _listed(tensor) if tensor.parameters.binary_data_size is None else _binary(tensor, behind)
    if tensor.parameters.binary_data_size is None and behind:
        raise InvalidInference(f"{len(behind)} bytes follow the JSON object, and no input has a binary_data_size")
    if tensor.datatype == "UINT8":
        return torch.from_numpy(unit_values(values).reshape(tensor.shape))
    if not ((values >= 0) & (values <= 1)).all():  # NaN fails too
        raise InvalidInference(f"{INPUT} has values that do not lie in [0, 1]")
    return torch.from_numpy(values.astype(np.float32).reshape(tensor.shape))


def _binary(tensor: InputTensor, behind: bytes) -> NDArray[Any]:
    dtype, size = _INPUT_TYPES[tensor.datatype], tensor.parameters.binary_data_size
    expected = int(np.prod(tensor.shape)) * dtype.itemsize
    if tensor.data is not None:
        raise InvalidInference(f"{INPUT} has both data and a binary_data_size")
    if size != expected:
        raise InvalidInference(
            f"{INPUT} has a binary_data_size of {size}, {tensor.datatype} of {tensor.shape} takes {expected}"
        )
    if len(behind) != expected:
        raise InvalidInference(
            f"{len(behind)} bytes follow the JSON object, its binary_data_size says {expected}; "
            f"{JSON_LENGTH_HEADER} must tell where they begin"
        )
    return np.frombuffer(behind, dtype)


def _listed(tensor: InputTensor) -> NDArray[Any]:
    """Values of a JSON list that is nested as the shape says, or flat."""
    if not isinstance(tensor.data, list):
        raise InvalidInference(f"{INPUT} has no list of data and no binary_data_size")
    flat = bool(tensor.data) and not isinstance(tensor.data[0], list)
    rows: list[Any] = [tensor.data]
    for length in [int(np.prod(tensor.shape))] if flat else tensor.shape:
        if not all(isinstance(row, list) and len(row) == length for row in rows):
            raise InvalidInference(f"{INPUT} has data that do not fill the shape {tensor.shape}, nested or flat")
        rows = list(chain.from_iterable(rows))
    if not set(map(type, rows)) <= _NUMBERS[tensor.datatype]:  # booleans and text too would pass for numbers
        raise InvalidInference(f"{INPUT} has data that are not all numbers of the type {tensor.datatype}")
    if tensor.datatype == "UINT8" and not (min(rows) >= 0 and max(rows) <= _BRIGHTEST):
        raise InvalidInference(f"{INPUT} has values that do not lie between 0 and {_BRIGHTEST}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused with the rest out of range
        return np.array(rows, _INPUT_TYPES[tensor.datatype])


def write_answer(
    request: InferenceRequest, scored: Sequence[Scored], threshold: float, members: Mapping[str, Any]
) -> tuple[bytes, int | None]:
    """The answer's body, and where its JSON object ends if tensors follow.

    Args:
        request: which outputs it wants, and how.
        scored: what the model made of the images.
        threshold: above which a score makes an anomaly.
        members: what the JSON object says besides.
    """
    wanted = {each.name: each.parameters.binary_data for each in request.outputs} or dict.fromkeys(OUTPUTS)
    described, behind = [], []
    for name, binary in wanted.items():
        output = OUTPUTS[name]
        values = np.ascontiguousarray(output.values(scored, threshold), output.dtype)
        description = {"name": name, "datatype": output.datatype, "shape": values.shape}
        if request.parameters.binary_data_output if binary is None else binary:
            behind.append(values.tobytes())
            described.append({**description, "parameters": {"binary_data_size": values.nbytes}})
        else:
            described.append({**description, "data": values.ravel()})
    head = orjson.dumps({**members, "outputs": described}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join((head, *behind)), len(head) if behind else None
