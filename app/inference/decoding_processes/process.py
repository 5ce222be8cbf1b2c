"""One decode process, as the service sees it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Final

from app.inference.decoding_processes.limits import Limits
from app.inference.decoding_processes.messages import Channel, Request
from app.inference.errors import DecodingUnavailable, UnreadableImage
from app.inference.images.model_input import DecodedImage, InputSpec

_PROGRAM: Final = "app.inference.decoding_processes.worker"
_CODE: Final = Path(__file__).parents[3]  # the folder of the package app
_START_S: Final = 60  # on a busy machine; usually a third of a second
_ENVIRONMENT: Final = {
    "OPENBLAS_NUM_THREADS": "1",  # threads of NumPy would each reserve address space
    "OMP_NUM_THREADS": "1",
    # Memory of images up to some megapixels is kept for the next: allocating it anew takes up to a tenth of the time.
    "MALLOC_MMAP_THRESHOLD_": str(2**24),
    "MALLOC_TRIM_THRESHOLD_": str(2**25),
}
_SECRETS: Final = "ANOMALY_"


def require_processes() -> None:
    """Checks that decode processes can be started, without waiting for one.

    Raises:
        DecodingUnavailable: they cannot.
    """
    DecodeProcess().end()


class DecodeProcess:
    """A decode process. It is started at once; the first image waits until it is ready.

    Raises:
        DecodingUnavailable: no process can be started.
    """

    def __init__(self) -> None:
        self._is_ready = False
        try:
            self._channel, theirs = Channel.pair()
        except OSError as error:
            raise _unavailable(error) from error
        with closing(theirs):
            try:
                self._process = subprocess.Popen(  # noqa: S603  this program, with the interpreter that runs it
                    [sys.executable, "-P", "-m", _PROGRAM, *map(str, theirs.descriptors)],
                    env=_environment(os.environ),
                    pass_fds=theirs.descriptors,
                    stdin=subprocess.DEVNULL,
                )
            except OSError as error:
                self._channel.close()
                raise _unavailable(error) from error

    @property
    def has_ended(self) -> bool:
        """Whether it can decode no further image."""
        return self._process.poll() is not None

    def wait_until_ready(self) -> None:
        """Waits until the process has started.

        Raises:
            DecodingUnavailable: it has ended, or takes too long.
        """
        if self._is_ready:
            return
        self._channel.connection.settimeout(_START_S)
        try:
            self._channel.receive_ready()
        except (OSError, EOFError) as error:
            self.end()
            raise DecodingUnavailable("a process to decode images ended while it started") from error
        self._is_ready = True

    def decode(self, file: bytes, spec: InputSpec, *, max_pixels: int, limits: Limits) -> DecodedImage:
        """Decodes an image within limits. If it exceeds them, the process ends.

        Raises:
            UnreadableImage: the image is not readable, takes too long, or ends the process.
            TooManyPixels: it has more than ``max_pixels``.
            DecodingUnavailable: the process could not be started.
        """
        self.wait_until_ready()
        request = Request(_json_of(spec), file, max_pixels, limits.memory, limits.cpu_s)
        self._channel.connection.settimeout(limits.wall_s)
        try:
            self._channel.send_request(request)
            decoded = self._channel.receive_answer()
            if decoded.pixels.shape != spec.shape:
                raise ValueError("the answer is not of the model's size")
        except (OSError, EOFError, ValueError) as error:
            is_late = isinstance(error, TimeoutError)
            self.end()
            if is_late:
                raise UnreadableImage(f"the image took too long to decode: {limits.wall_s:.0f} s passed") from error
            if self._process.returncode == -signal.SIGPROF:
                allowed = f"{limits.cpu_s:.1f} s of processor time"
                raise UnreadableImage(f"the image took too long to decode: more than {allowed}") from error
            raise UnreadableImage("the image cannot be decoded: its decoder crashed") from error
        return decoded

    def kill(self) -> None:
        """Kills the process; an image in another thread fails, and that thread calls :meth:`end`."""
        self._process.kill()

    def end(self) -> None:
        """Ends the process at once; decoding fails."""
        self._process.kill()
        self._process.wait()
        self._channel.close()


@lru_cache(maxsize=256)
def _json_of(spec: InputSpec) -> bytes:
    return spec.model_dump_json().encode()


def _unavailable(error: OSError) -> DecodingUnavailable:
    return DecodingUnavailable(f"no process to decode images can be started: {error.strerror}")


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The environment of a decode process: without the service's settings, which have keys."""
    kept = {name: value for name, value in ours.items() if not name.startswith(_SECRETS)}
    path = os.pathsep.join(filter(None, (str(_CODE), ours.get("PYTHONPATH"))))
    return {**kept, **_ENVIRONMENT, "PYTHONPATH": path}
