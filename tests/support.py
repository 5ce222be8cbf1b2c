"""Helpers of the tests: small real bundles, image files, a real server process."""

import base64
import contextlib
import functools
import io
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

from app.inference.bundles import torchscript
from app.inference.bundles.bundle import MODEL_FILE, file_record
from app.inference.bundles.manifest import (
    CalibrationRecord,
    Data,
    ErrorMap,
    Golden,
    Loss,
    Manifest,
    Scoring,
    Split,
    Training,
)
from app.inference.bundles.store import new_version
from app.inference.decisions.conformal import Calibration
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec
from app.inference.images.rendering import png, to_pixels
from tests import warm
from training.evaluation.scores import score_all
from training.model.autoencoders import DenseAutoencoder, parameter_count
from training.model.scoring_rules import Mse, ScoredAutoencoder

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
# Environment of programs without coverage measurement, which would double the time of importing libraries.
WITHOUT_COVERAGE = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
SPEC = InputSpec(mode="L", height=8, width=8)


class SlowAutoencoder(DenseAutoencoder):
    """A slow network in a small file. Each round takes about 15 µs."""

    def __init__(self, rounds: int) -> None:
        super().__init__(SPEC.shape, (16,), 4, linear_code=True)
        self.rounds = rounds

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rebuilt = images
        for _ in range(self.rounds):
            rebuilt = self.decoder(self.encoder(rebuilt)).reshape(images.shape)
        return rebuilt


class BrightestCell(torch.nn.Module):
    """A model whose score is the maximum of a coarse map of brightness."""

    def __init__(self, cells: tuple[int, int]) -> None:
        super().__init__()
        self.rows, self.columns = cells
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        error_map = torch.nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), (self.rows, self.columns))
        rebuilt = images * self.weight
        return rebuilt, (images - rebuilt).square().flatten(1).mean(1), error_map.flatten(1).amax(1), error_map


def make_bundle(
    name: str,
    *,
    seed: int = 0,
    version: str | None = None,
    spec: InputSpec = SPEC,
    network: torch.nn.Module | None = None,
    cells: tuple[int, int] | None = None,
) -> tuple[Manifest, dict[str, bytes]]:
    """A real bundle of an untrained network: (manifest, files), ready to publish.

    With ``cells``, that of a model whose error map has so many rows and columns, each cell with the mean brightness of
    its part of the image; its score is the maximum of the map.
    """
    if network is None and cells is None:
        manifest, files = _untrained(seed, spec)
    else:
        manifest, files = _bundle(seed, spec, network, cells)
    identity = {"name": name, "version": version or new_version(), "created_at": datetime.now(UTC)}
    return manifest.model_copy(update=identity), dict(files)


@functools.cache
def _untrained(seed: int, spec: InputSpec) -> tuple[Manifest, dict[str, bytes]]:
    return _bundle(seed, spec, None)


def _bundle(
    seed: int, spec: InputSpec, network: torch.nn.Module | None, cells: tuple[int, int] | None = None
) -> tuple[Manifest, dict[str, bytes]]:
    torch.manual_seed(seed)
    network = network or DenseAutoencoder(spec.shape, (16,), 4, linear_code=True)
    archive = torchscript.dump(BrightestCell(cells) if cells else ScoredAutoencoder(network, Mse()))
    model = torchscript.load(archive)
    images = (torch.rand(120, *spec.shape) * 255).round() / 255
    golden = png(to_pixels(images[0]))
    tensor = open_image(golden, max_pixels=10**6).decode(spec).tensor
    scores = score_all(model, tensor.unsqueeze(0))
    calibration = Calibration(score_all(model, images[:99]).score)
    files = {MODEL_FILE: archive, "report/loss.png": golden}
    manifest = Manifest(
        name="untrained",
        version=new_version(),
        created_at=datetime.now(UTC),
        input=spec,
        error_map=ErrorMap(height=cells[0], width=cells[1], score="maximum")
        if cells
        else ErrorMap(height=spec.height, width=spec.width, score="rule"),
        scoring=Scoring(rule="mse", formula="mean((x - x̂)²)"),
        threshold=calibration.threshold_for(0.05),
        false_alarm_rate=0.05,
        guarantee="marginal",
        promise="a promise",
        evaluation=None,
        training=Training(
            recipe={"name": "untrained"},
            parameters=parameter_count(network),
            seed=seed,
            device="cpu",
            threads=1,
            seconds=0,
            split=Split(fit=21, validation=(), calibration=tuple(range(99))),
            loss=Loss(train=(0.1,), validation=()),
        ),
        data=Data(source="random", normal="all", fingerprint="0" * 64, groups=120, unreadable=0, near_duplicates=None),
        libraries={"torch": str(torch.__version__)},
        files={file: file_record(content) for file, content in files.items()},
        golden=Golden(image=base64.b64encode(golden).decode(), mse=scores.mse[0], score=scores.score[0]),
        calibration=CalibrationRecord.of(calibration),
    )
    return manifest, files


def encode(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


@contextlib.contextmanager
def killed_while_busy(processes: Sequence[int], after_s: float = 0.5) -> Iterator[None]:
    """Stops processes, and kills them while the ``with`` block waits for them."""
    for process in processes:
        os.kill(process, signal.SIGSTOP)

    def kill() -> None:
        for process in processes:
            os.kill(process, signal.SIGKILL)

    timer = threading.Timer(after_s, kill)
    timer.start()
    yield
    timer.join()


def gradient(width: int = 8, height: int = 8) -> Image.Image:
    """A grey image in which all rows and all columns are different."""
    values = np.add.outer(np.arange(height) * 131 % 120, np.arange(width) * 89 % 130).astype(np.uint8)
    return Image.fromarray(values)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A running ``python -m app``."""

    process: warm.Process
    client: httpx.Client
    port: int
    log: Path

    def wait_for(self, path: str, status: int, *, seconds: float = 120) -> httpx.Response:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                response = self.client.get(path)
                if response.status_code == status:
                    return response
            time.sleep(0.05)
        raise AssertionError(f"{path} did not return {status} within {seconds} s:\n{self.log.read_text()}")


def run_app(log: Path, *options: str) -> tuple[int, str]:
    """Runs ``python -m app`` until it ends by itself: exit status, and what it printed on both streams."""
    process = warm.Process("app", *options, cwd=ROOT, env=os.environ, log=log)
    return process.wait(60), log.read_text()


@contextlib.contextmanager
def running_server(
    store: Path, log: Path, *, ready: bool = True, measure_coverage: bool = True, **settings: object
) -> Iterator[Server]:
    """Starts the real service, on a free port unless one is given. Stops it with SIGTERM and asserts status 0.

    Coverage is measured in the service and its workers, not in decode processes, which can open no file for it.
    """
    port = int(str(settings.get("port") or free_port()))
    inherited = os.environ if "workers" in settings else WITHOUT_COVERAGE
    environment: Mapping[str, str] = {
        **{key: value for key, value in inherited.items() if not key.startswith("ANOMALY_")},
        "ANOMALY_MODEL_STORE": str(store),
        "ANOMALY_PORT": str(port),
        "ANOMALY_DRAIN_S": "0",
        **{f"ANOMALY_{key.upper()}": str(value) for key, value in settings.items()},
    }
    process = warm.Process("app", cwd=ROOT, env=environment, log=log, measure_coverage=measure_coverage)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
        server = Server(process, client, port, log)
        try:
            server.wait_for("/health/ready" if ready else "/health/live", 200)
            yield server
        finally:
            client.close()
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert code == 0, log.read_text()
