"""What the service and a decode process say to each other.

A request is a head, the model's input as JSON and the image file; an answer is a head, a JSON object and the pixels.
Files and pixels go through memory that both share, the rest through a socket: a socket takes some 200 kB at once, and
each further part would make both sides wait for each other.

Nothing is unpickled: a process that a hostile file has taken over can answer with other pixels, and with nothing else.
"""

import json
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

import numpy as np

from app.inference.errors import InferenceError, TooManyPixels, UnreadableImage
from app.inference.images.model_input import DecodedImage, Pixels

_READY: Final = b"!"
_REQUEST: Final = struct.Struct("<IQQQd")
_ANSWER: Final = struct.Struct("<IQ")
_MAX_TEXT: Final = 2**20
_MAX_PIXEL_BYTES: Final = 2**26  # above the largest input of a model, 3 × 2048 × 2048 × 4
_MAX_SIDE: Final = 2**32 - 1  # of every format
_KEPT_BYTES: Final = 2**21  # of shared memory, which takes time to allocate
_ERRORS: Final = {error.__name__: error for error in (UnreadableImage, TooManyPixels)}
_TYPES: Final[Mapping[str, np.dtype[Any]]] = {"uint8": np.dtype(np.uint8), "float32": np.dtype(np.float32)}


class Request(NamedTuple):
    """An image to decode.

    Attributes:
        spec: the model's input, as the JSON of an ``InputSpec``.
        file: the image file.
        max_pixels: the largest width × height that is accepted.
        memory: bytes of address space that decoding may add.
        cpu_s: seconds of processor time that it may take.
    """

    spec: bytes
    file: bytes
    max_pixels: int
    memory: int
    cpu_s: float


class Channel:
    """One end of the connection between the service and a process.

    Args:
        connection: a stream socket.
        shared: the descriptor of a file in memory, the same for both ends.
    """

    def __init__(self, connection: socket.socket, shared: int) -> None:
        self.connection = connection
        self._sent = 0
        self._memory = open(shared, "r+b", buffering=0)  # noqa: SIM115  a descriptor, until close

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Both ends of a new connection.

        Raises:
            OSError: there are too many open files.
        """
        ours, theirs = socket.socketpair()
        shared = _file_in_memory()
        return cls(ours, shared), cls(theirs, os.dup(shared))

    @property
    def descriptors(self) -> tuple[int, int]:
        """Those of the socket and of the shared memory, for the process that gets this end."""
        return self.connection.fileno(), self._memory.fileno()

    def send_ready(self) -> None:
        """Says that the process has started."""
        self.connection.sendall(_READY)

    def receive_ready(self) -> None:
        """Waits until the process has started.

        Raises:
            OSError, EOFError: it has ended, or the socket's timeout has passed.
        """
        self._receive(len(_READY))

    def send_request(self, request: Request) -> None:
        """Sends a request.

        Raises:
            OSError: the process has ended, or the memory is full.
        """
        self._share(request.file)
        self._sent = len(request.file)
        sizes = len(request.spec), len(request.file)
        head = _REQUEST.pack(*sizes, request.max_pixels, request.memory, request.cpu_s)
        self.connection.sendall(head + request.spec)

    def receive_request(self) -> Request:
        """The next request.

        Raises:
            EOFError: the service has closed the connection, or has ended.
        """
        spec, file, max_pixels, memory, cpu_s = _REQUEST.unpack(self._receive(_REQUEST.size))
        content = os.pread(self._memory.fileno(), file, 0)
        return Request(self._receive(spec), content, max_pixels, memory, cpu_s)

    def send_answer(self, outcome: DecodedImage | InferenceError) -> None:
        """Sends the outcome of a request."""
        described: dict[str, Any]
        size = 0
        if isinstance(outcome, InferenceError):
            described = {"error": type(outcome).__name__, "text": str(outcome)}
        else:
            array = np.ascontiguousarray(outcome.pixels)
            described = {"type": array.dtype.name, "shape": array.shape, "warnings": outcome.warnings}
            described["size"] = outcome.size
            size = array.nbytes
            self._share(array.data.cast("B"))
        text = json.dumps(described).encode()
        self.connection.sendall(_ANSWER.pack(len(text), size) + text)

    def receive_answer(self) -> DecodedImage:
        """The image of an answer.

        Raises:
            UnreadableImage, TooManyPixels: the process has rejected it.
            OSError, EOFError: the process has ended, or the socket's timeout has passed.
            ValueError: the answer is not valid.
        """
        text, size = _ANSWER.unpack(self._receive(_ANSWER.size))
        if text > _MAX_TEXT or size > _MAX_PIXEL_BYTES:
            raise ValueError("the answer is too long")
        described = json.loads(self._receive(text))
        content = os.pread(self._memory.fileno(), size, 0)
        if max(size, self._sent) > _KEPT_BYTES:
            self._memory.truncate(0)
        try:
            if "error" in described:
                raise _ERRORS[described["error"]](str(described["text"]))
            pixels: Pixels = np.frombuffer(content, _TYPES[described["type"]]).reshape(described["shape"])
            return DecodedImage(pixels, tuple(map(str, described["warnings"])), _size(described["size"]))
        except (KeyError, TypeError) as error:
            raise ValueError("the answer is not valid") from error

    def close(self) -> None:
        """Closes this end."""
        self.connection.close()
        self._memory.close()

    def _share(self, content: bytes | memoryview) -> None:
        if os.pwrite(self._memory.fileno(), content, 0) != len(content):
            raise OSError("the shared memory is full")

    def _receive(self, size: int) -> bytes:
        """Exactly ``size`` bytes of the socket."""
        content = b""
        while len(content) < size:
            piece = self.connection.recv(size - len(content))
            if not piece:
                raise EOFError("the connection has ended")
            content += piece
        return content


def _size(described: Any) -> tuple[int, int] | None:
    """The size of an image file.

    Raises:
        ValueError, TypeError: it is not valid.
    """
    if described is None:
        return None
    width, height = described
    if not all(type(side) is int and 0 < side <= _MAX_SIDE for side in (width, height)):
        raise ValueError("the size is not valid")
    return width, height


def _file_in_memory() -> int:
    """A descriptor of a new file; where the system has none in memory, of one without a name."""
    if sys.platform == "linux":
        return os.memfd_create("image")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
