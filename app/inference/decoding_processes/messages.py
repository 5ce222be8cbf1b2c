"""What the service and a decode process say to each other, over a stream socket.

A request is a head, the model's input as JSON and the image file; an answer is a head, a JSON object and the pixels.
Nothing is unpickled: a process that a hostile file has taken over can answer with other pixels, and with nothing else.
"""

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from app.inference.errors import InferenceError, TooManyPixels, UnreadableImage
from app.inference.images.model_input import DecodedImage, Pixels

READY: Final = b"!"
"""What a process sends once when it has started."""

_REQUEST: Final = struct.Struct("<IQQQI")
_ANSWER: Final = struct.Struct("<IQ")
_MAX_TEXT: Final = 2**20
_MAX_PIXEL_BYTES: Final = 2**26  # above the largest input of a model, 3 × 2048 × 2048 × 4
_ERRORS: Final = {error.__name__: error for error in (UnreadableImage, TooManyPixels)}
_TYPES: Final[Mapping[str, np.dtype[Any]]] = {"uint8": np.dtype(np.uint8), "float32": np.dtype(np.float32)}


class Request(NamedTuple):
    """An image to decode.

    Attributes:
        spec: the model's input, as the JSON of an ``InputSpec``.
        file: the image file.
        max_pixels: the largest width × height that is accepted.
        memory: bytes of address space that decoding may add.
        cpu_s: whole seconds of processor time that it may take.
    """

    spec: bytes
    file: bytes
    max_pixels: int
    memory: int
    cpu_s: int


def send_request(connection: socket.socket, request: Request) -> None:
    """Sends a request.

    Raises:
        OSError: the process has ended, or the socket's timeout has passed.
    """
    sizes = len(request.spec), len(request.file)
    connection.sendall(_REQUEST.pack(*sizes, request.max_pixels, request.memory, request.cpu_s) + request.spec)
    connection.sendall(request.file)


def receive_request(connection: socket.socket) -> Request:
    """The next request.

    Raises:
        EOFError: the service has closed the connection, or has ended.
    """
    spec, file, max_pixels, memory, cpu_s = _REQUEST.unpack(receive(connection, _REQUEST.size))
    return Request(receive(connection, spec), receive(connection, file), max_pixels, memory, cpu_s)


def send_answer(connection: socket.socket, outcome: DecodedImage | InferenceError) -> None:
    """Sends the outcome of a request."""
    described: dict[str, Any]
    if isinstance(outcome, InferenceError):
        described, pixels = {"error": type(outcome).__name__, "text": str(outcome)}, memoryview(b"")
    else:
        array = np.ascontiguousarray(outcome.pixels)
        described = {"type": array.dtype.name, "shape": array.shape, "warnings": outcome.warnings}
        pixels = array.data.cast("B")
    text = json.dumps(described).encode()
    connection.sendall(_ANSWER.pack(len(text), pixels.nbytes) + text)
    connection.sendall(pixels)


def receive_answer(connection: socket.socket) -> DecodedImage:
    """The image of an answer.

    Raises:
        UnreadableImage, TooManyPixels: the process has rejected it.
        OSError, EOFError: the process has ended, or the socket's timeout has passed.
        ValueError: the answer is not valid.
    """
    text_bytes, pixel_bytes = _ANSWER.unpack(receive(connection, _ANSWER.size))
    if text_bytes > _MAX_TEXT or pixel_bytes > _MAX_PIXEL_BYTES:
        raise ValueError("the answer is too long")
    described = json.loads(receive(connection, text_bytes))
    content = receive(connection, pixel_bytes)
    try:
        if "error" in described:
            raise _ERRORS[described["error"]](str(described["text"]))
        pixels: Pixels = np.frombuffer(content, _TYPES[described["type"]]).reshape(described["shape"])
        return DecodedImage(pixels, tuple(map(str, described["warnings"])))
    except (KeyError, TypeError) as error:
        raise ValueError("the answer is not valid") from error


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes.

    Raises:
        EOFError: the connection ends before.
    """
    pieces: list[bytes] = []
    while size:
        pieces.append(connection.recv(size, socket.MSG_WAITALL))  # usually one, which is not copied again
        size -= len(pieces[-1])
        if not pieces[-1]:
            raise EOFError("the connection has ended")
    return b"".join(pieces)
