"""The environments of the peers: one for each, created at first use, with the versions of its ``requirements.txt``."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.peers.servers import SERVERS
from benchmarks.servers import ROOT

ENVIRONMENTS: Final = Path.home() / ".cache" / "anomaly-service-benchmarks"
"""Where the environments are, unless ``--environments`` says otherwise."""


def pinned_version(name: str) -> str:
    """The version of a peer's package in its ``requirements.txt``."""
    lines = _requirements(name).read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{name}=="))


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
