"""A decode process: decodes one image after another within limits of memory and processor time.

It runs as a program with a socket, imports no torch, gets none of the service's settings, and ends when the service
does: the socket is closed then. It imports and opens what it needs, and then sandboxes itself.
"""

import os
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final, NoReturn

from PIL import Image, Jpeg2KImagePlugin, MpoImagePlugin, WebPImagePlugin

from app.inference.decoding_processes.confinement import confine
from app.inference.decoding_processes.messages import Channel, Request
from app.inference.errors import InferenceError
from app.inference.images.decoding import decode
from app.inference.images.model_input import DecodedImage, InputSpec

_NICENESS: Final = 10  # a tenth of the processor time of small images and answers, which do not wait for large images
_PLUGINS: Final = (Jpeg2KImagePlugin, MpoImagePlugin, WebPImagePlugin)  # otherwise imported by the first image
_STATM: Final = Path("/proc/self/statm")  # on Linux; elsewhere address space is not limited
_STATM_BYTES: Final = 200  # it has seven numbers
_spec_of: Final = lru_cache(maxsize=256)(InputSpec.model_validate_json)


def main(connection: int, shared: int) -> NoReturn:
    """Answers requests until the connection ends, and then ends the process.

    Args:
        connection: the descriptor of the socket.
        shared: that of the shared memory.
    """
    # Signals for the group, from a terminal or a supervisor, are for the service, which still has images to decode.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICENESS)
    warnings.simplefilter("ignore")  # of Pillow, about unusual files
    Image.preinit()
    channel = Channel(socket.socket(fileno=connection), shared)
    statm = os.open(_STATM, os.O_RDONLY) if _STATM.exists() else None
    confine()
    channel.send_ready()
    while True:
        try:
            channel.send_answer(_outcome(channel.receive_request(), statm))
        except (EOFError, ConnectionError):
            os._exit(0)  # exit handlers, such as those of coverage, could not open files and would log that


def _outcome(request: Request, statm: int | None) -> DecodedImage | InferenceError:
    spec = _spec_of(request.spec)
    try:
        with _limited(statm, request.memory, request.cpu_s):
            return decode(request.file, spec, max_pixels=request.max_pixels)
    except InferenceError as error:
        return error


@contextmanager
def _limited(statm: int | None, memory: int, cpu_s: float) -> Iterator[None]:
    """Limits what a ``with`` block may add to the process's address space and processor time.

    An allocation beyond fails. The kernel ends the process with SIGPROF when its time is over; RLIMIT_CPU would do it
    at a whole second since its start.

    Args:
        statm: the open file with the size of the address space; None: it is not limited.
        memory: bytes.
        cpu_s: seconds.
    """
    before = soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if statm is not None:
        soft = int(os.pread(statm, _STATM_BYTES, 0).split()[0]) * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
