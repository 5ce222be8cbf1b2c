"""A pool of decode processes."""

import threading
from typing import Final

from app.inference.decoding_processes.limits import Limits
from app.inference.decoding_processes.process import DecodeProcess
from app.inference.errors import DecodingUnavailable
from app.inference.images.cost import decode_cost
from app.inference.images.model_input import DecodedImage, InputSpec


class DecodePool:
    """Decodes images in processes. May be called from any thread; each call has a process to itself.

    A process that has ended, because of an image or otherwise, is replaced when the next image needs it.

    Args:
        size: most images that are decoded at once; further calls wait.
    """

    def __init__(self, size: int) -> None:
        self._size: Final = size
        self._turns = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[DecodeProcess] = []
        self._all: set[DecodeProcess] = set()
        self._is_closed = False

    def start(self) -> None:
        """Starts all processes and waits until one is ready.

        Raises:
            DecodingUnavailable: they cannot be started.
        """
        for _ in range(self._size):
            self._return(self._new())
        if not self._idle:
            raise DecodingUnavailable("a process to decode images ended while it started")
        self._idle[-1].wait_until_ready()  # the next to be used; the others have time until it is busy

    def decode(self, file: bytes, spec: InputSpec, *, max_pixels: int) -> DecodedImage:
        """Decodes an image, as :func:`app.inference.images.decoding.decode` does, within limits of time and memory.

        Raises:
            UnreadableImage: the image is not readable, or exceeds the limits.
            TooManyPixels: it has more than ``max_pixels``.
            DecodingUnavailable: no process can be started, or the pool is closed.
        """
        limits = Limits.of(decode_cost(file, spec), spec)
        with self._turns:
            process = self._take()
            try:
                return process.decode(file, spec, max_pixels=max_pixels, limits=limits)
            finally:
                self._return(process)

    def close(self) -> None:
        """Ends all processes at once; what they decode fails."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            busy = self._all.difference(idle)
        for process in busy:
            process.kill()
        for process in idle:
            self._forget(process)

    def _take(self) -> DecodeProcess:
        with self._lock:
            process = self._idle.pop() if self._idle else None
        if process is not None and not process.has_ended:
            return process
        if process is not None:
            self._forget(process)
        return self._new()

    def _new(self) -> DecodeProcess:
        with self._lock:
            if self._is_closed:
                raise DecodingUnavailable("the service is shutting down")
            process = DecodeProcess()
            self._all.add(process)
            return process

    def _return(self, process: DecodeProcess) -> None:
        with self._lock:
            is_usable = not (self._is_closed or process.has_ended)
            if is_usable:
                self._idle.append(process)
        if not is_usable:
            self._forget(process)

    def _forget(self, process: DecodeProcess) -> None:
        process.end()
        with self._lock:
            self._all.discard(process)
