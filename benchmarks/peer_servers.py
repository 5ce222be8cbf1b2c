"""The servers that ``benchmarks.peers`` compares: how to start them, and how to send them an image.

Each peer runs in its own environment, which is created at first use. Its code is in ``benchmarks/peers/<peer>/``.
"""

import base64
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.errors import BenchmarkError
from benchmarks.load.server_process import free_port
from benchmarks.servers import SHIPPED

ROOT: Final = Path(__file__).resolve().parent.parent
SERVERS: Final = Path(__file__).with_name("peers")
SHARED: Final = SERVERS / "shared"

ENVIRONMENTS: Final = Path.home() / ".cache" / "anomaly-service-benchmarks"
"""Where the environments are, unless ``--environments`` says otherwise."""

_MODEL: Final = SHIPPED.folder.name

Answer = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A server to measure.

    Attributes:
        name: of its folder, its environment and its package.
        command: port → command line; the program is taken from the server's environment, if it is there.
        path: for POST requests with an image.
        content_type: of a request.
        body: image file → body of a request.
        answer: JSON of a response → the answer in it.
        variables: port → environment variables.
        prepare: scratch folder → a command that runs once before the first start; the server finds the folder in
            ``$BENCHMARK_SCRATCH``.
        needs: a program that must be on the path, and how to install it.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    path: str
    content_type: str = "application/json"
    body: Callable[[bytes], bytes] = lambda file: file
    answer: Callable[[Any], Answer] = dict
    variables: Callable[[int], Mapping[str, str]] = lambda _: {}
    prepare: Callable[[Path], Sequence[str]] | None = None
    needs: tuple[str, str] | None = None


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode()


OURS: Final = Target(
    name="ours",
    command=lambda port: ["python", "-m", "app", "--port", str(port)],
    path="/score",
    content_type="image/png",
)

PEERS: Final = {
    peer.name: peer
    for peer in (
        Target(
            name="litserve",
            command=lambda port: ["python", "server.py", "--port", str(port)],
            path="/predict",
            body=lambda file: json.dumps({"image": _base64(file)}).encode(),
        ),
        Target(
            name="bentoml",
            command=lambda port: ["bentoml", "serve", "service:Anomaly", "--host", "127.0.0.1", "--port", str(port)],
            path="/score",
            body=lambda file: json.dumps({"images": [_base64(file)]}).encode(),
            answer=lambda envelope: dict(envelope[0]),
            variables=lambda _: {"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Target(
            name="mlserver",
            command=lambda _: ["mlserver", "start", "."],
            path=f"/v2/models/{_MODEL}/infer",
            body=lambda file: json.dumps(
                {
                    "inputs": [
                        {
                            "name": "image",
                            "shape": [1, 1],
                            "datatype": "BYTES",
                            "parameters": {"content_type": "base64"},
                            "data": [_base64(file)],
                        }
                    ]
                }
            ).encode(),
            answer=lambda envelope: dict(json.loads(envelope["outputs"][0]["data"][0])),
            variables=lambda port: {
                "MLSERVER_HTTP_PORT": str(port),
                "MLSERVER_GRPC_PORT": str(free_port()),
                "MLSERVER_METRICS_PORT": str(free_port()),
            },
        ),
        Target(
            name="kserve",
            command=lambda port: [
                "python", "server.py", "--http_port", str(port), "--enable_grpc", "false", "--model_name", _MODEL,
            ],
            path=f"/v1/models/{_MODEL}:predict",
            content_type="image/png",
        ),
        Target(
            name="torchserve",
            command=lambda _: ["sh", "serve.sh", _MODEL],
            path=f"/predictions/{_MODEL}",
            content_type="image/png",
            variables=lambda port: {
                "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{port}",
                "TS_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{free_port()}",
                "TS_METRICS_ADDRESS": f"http://127.0.0.1:{free_port()}",
            },
            prepare=lambda scratch: [
                "torch-model-archiver", "--model-name", _MODEL, "--version", "1.0", "--force",
                "--serialized-file", str(SHIPPED.version / "model.pt"),
                "--handler", "handler.py",
                "--extra-files", f"{SHIPPED.version / 'manifest.json'},{SHARED / 'anomaly.py'}",
                "--config-file", "model-config.yaml",
                "--export-path", str(scratch),
            ],
            needs=("java", "needs Java 11 or newer; on Debian: apt-get install default-jre-headless"),
        ),
    )
}  # fmt: skip


def pinned_version(name: str) -> str:
    """The version of a peer's package in its ``requirements.txt``."""
    lines = _requirements(name).read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{name}=="))


def create_environment(target: Target, folder: Path) -> Path:
    """Creates the environment of a peer if it does not exist yet; returns the folder of its programs.

    Raises:
        BenchmarkError: the installation failed, or a program that the peer needs is missing.
    """
    if target.needs and shutil.which(target.needs[0]) is None:
        raise BenchmarkError(target.needs[1])
    return install(target.name, folder)


def is_installed(name: str, folder: Path) -> bool:
    """Whether the environment of a peer is there, with the versions of its ``requirements.txt``."""
    done = folder / "installed.txt"
    return done.exists() and done.read_text() == _contents(name)


def install(name: str, folder: Path) -> Path:
    """Creates the environment for ``benchmarks/peers/<name>``, if it is not there; returns the folder of its programs.

    It contains the same build of torch as this environment. Builds of the backend index have a local version label.

    Raises:
        BenchmarkError: the installation failed.
    """
    if not is_installed(name, folder):
        print("  installing …", flush=True)
        torch = _torch()
        uv = [sys.executable, "-m", "uv"]
        backend = ["--torch-backend=auto"] if "+" in torch else []
        python = str(folder / "bin" / "python")
        requirements = str(_requirements(name))
        run_command([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], ROOT)
        run_command([*uv, "pip", "install", "--quiet", *backend, "--python", python, "-r", requirements, torch], ROOT)
        (folder / "installed.txt").write_text(_contents(name))
    return folder / "bin"


def _requirements(name: str) -> Path:
    return SERVERS / name / "requirements.txt"


def _torch() -> str:
    return f"torch=={version('torch')}"


def _contents(name: str) -> str:
    return "\n".join([platform.python_version(), _torch(), _requirements(name).read_text()])


def run_command(command: list[str], folder: Path, variables: Mapping[str, str] | None = None) -> None:
    """Runs a command in a folder, with additional environment variables.

    Raises:
        BenchmarkError: it cannot be started, or its exit status is not 0.
    """
    environment = {**os.environ, **(variables or {})}
    program = shutil.which(command[0], path=environment["PATH"]) or command[0]
    try:
        subprocess.run(  # noqa: S603  fixed commands
            [program, *command[1:]], cwd=folder, env=environment, check=True, capture_output=True, text=True
        )
    except OSError as error:
        raise BenchmarkError(f"{command[0]} cannot be started: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        output = " ".join((error.stderr or error.stdout).split())
        raise BenchmarkError(f"{' '.join(command[:4])} failed: {output[:300]}") from error
