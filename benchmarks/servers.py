"""The servers that are compared: the service and the reference applications, on the server's core by default."""

import base64
import contextlib
import http.client
import json
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.inference.bundles.store import ModelStore
from benchmarks.errors import BenchmarkError
from benchmarks.load.server_process import SERVER_CORE, Server, free_port, pinned_server
from benchmarks.load.wrk import Load

ROOT: Final = Path(__file__).resolve().parent.parent
PATH: Final = "/score"

_OK: Final = 200


@dataclass(frozen=True)
class Target:
    """A server: its command and environment variables."""

    name: str
    command: Sequence[str]
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    server: Server
    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Model:
    """A published model that the servers load.

    Attributes:
        folder: ``STORE/NAME``.
    """

    folder: Path

    @property
    def version(self) -> Path:
        """The folder of the current version."""
        return self.folder / ModelStore(self.folder.parent).current(self.folder.name)

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the current version."""
        manifest: dict[str, Any] = json.loads((self.version / "manifest.json").read_text())
        return manifest

    @property
    def golden_image(self) -> bytes:
        """One of its calibration images, as a file."""
        return base64.b64decode(self.manifest["golden"]["image"])


SHIPPED: Final = Model(ROOT / "model_store" / "mnist-5")


def service(variables: Mapping[str, str], model: Model = SHIPPED) -> Target:
    """The service with a model."""
    settings = {
        "ANOMALY_LOG_FORMAT": "json",
        "ANOMALY_MODEL_STORE": str(model.folder.resolve().parent),
        "ANOMALY_MODEL": model.folder.name,
    }
    return Target("service", [sys.executable, "-m", "app"], {**settings, **variables})


def reference(name: str, variables: Mapping[str, str] | None = None, model: Model = SHIPPED) -> Target:
    """An application of ``benchmarks.reference`` with a model."""
    command = [
        sys.executable, "-m", "uvicorn", f"benchmarks.reference.{name}:app",
        "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    return Target(name, command, {"BENCHMARK_BUNDLE": str(model.version.resolve()), **(variables or {})})


@contextlib.contextmanager
def started(target: Target, image: bytes, *, cores: Collection[int] = (SERVER_CORE,)) -> Iterator[Running]:
    """A server on its cores, which has answered a request with the image, until the end of the ``with`` block.

    Raises:
        BenchmarkError: it does not start.
    """
    port = free_port()
    command, variables = [*target.command], dict(target.variables)
    if target.name == "service":
        variables["ANOMALY_PORT"] = str(port)
    else:
        command += ["--port", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with pinned_server(
            command, lambda: bool(ask(port, image)), log=log, environment=variables, folder=ROOT, cores=cores
        ) as server:
            yield Running(server, port)


def ask(port: int, image: bytes) -> bytes:
    """The body of an answer; empty if the status is not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", PATH, image, {"Content-Type": "application/octet-stream"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    return content if response.status == _OK else b""


def alternate(name: str, ours: Callable[[], Load], other: Callable[[], Load], rounds: int) -> list[tuple[Load, Load]]:
    """Measures both sides in every round, in alternating order.

    Raises:
        BenchmarkError: an answer was wrong.
    """
    pairs = []
    for number in range(rounds):
        mine, theirs = (ours(), other()) if number % 2 == 0 else (other(), ours())[::-1]
        if mine.errors or theirs.errors:
            raise BenchmarkError(f"{name}: {mine.errors} and {theirs.errors} answers were wrong")
        print(f"{name:12} {mine.requests_per_s:9.0f} {theirs.requests_per_s:9.0f} requests/s", flush=True)
        pairs.append((mine, theirs))
    return pairs
