"""Capacity planning: the number of pods for a load, by the formula of deploy/SCALING.md.

``python -m benchmarks.capacity`` prints the tables of that page, with the figures of benchmarks/results.json.
``--measure-models 16`` first measures the memory of each further model and writes it to that file.
"""

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx

from app.inference.bundles.store import ModelStore, new_version
from benchmarks.errors import BenchmarkError
from benchmarks.load.server_process import Server, free_port, pinned_server

_ROOT: Final = Path(__file__).resolve().parent.parent
_RESULTS: Final = _ROOT / "benchmarks" / "results.json"
_RATE: Final = "requests/s ÷ a bare ASGI app, raw PNG"
_IMAGE_RATE: Final = ": requests/s ÷"
_MEMORY: Final = "MB of memory of one worker"
_MODEL: Final = "mnist-5"
_MB: Final = 1e6

LOADS: Final = [1_000.0, 100_000.0]
MODELS: Final = [1, 20]
CAMERAS: Final = [10, 100, 1_000]


@dataclass(frozen=True)
class Figures:
    """The input of the formula.

    Attributes:
        requests_per_core: requests/s of one worker on one core at full load.
        worker_mb: memory of a worker with one model, in MB.
        model_mb: memory of each further model, in MB.
        utilisation: planned share of a core, in (0, 1]; the rest is for bursts and uneven balancing.
        spare_pods: pods that may be missing, during a rollout or after the loss of a node, without overload.
    """

    requests_per_core: float
    worker_mb: float
    model_mb: float
    utilisation: float = 0.6
    spare_pods: int = 1

    def __post_init__(self) -> None:
        if not (self.requests_per_core > 0 and 0 < self.utilisation <= 1):
            raise ValueError(f"the figures give no capacity: {self}")


@dataclass(frozen=True)
class Plan:
    """The pods for a load, each with one worker and one core, and their total memory in GB."""

    pods: int
    memory_gb: float


def plan(requests_per_s: float, models: int, figures: Figures) -> Plan:
    """The formula: ⌈R / (r·u)⌉ + s pods, each with m₀ + (k − 1)·m₁ of memory."""
    pods = math.ceil(requests_per_s / (figures.requests_per_core * figures.utilisation)) + figures.spare_pods
    return Plan(pods, pods * (figures.worker_mb + (models - 1) * figures.model_mb) / 1000)


def measured(results: dict[str, Any]) -> Figures:
    """The figures in benchmarks/results.json."""
    lines = {line["measure"]: line["ours"] for line in results["serving"]["lines"]}
    rate = next(value for measure, value in lines.items() if measure.startswith(_RATE))
    return Figures(rate, lines[_MEMORY], results["capacity"]["model_mb"])


def _table(loads: list[float], models: list[int], figures: Figures) -> str:
    """The plans as a Markdown table."""
    rows = ["| requests/s | models | pods = cores | memory |", "|---:|---:|---:|---:|"]
    for load in loads:
        for count in models:
            planned = plan(load, count, figures)
            rows.append(f"| {load:,.0f} | {count} | {planned.pods:,} | {planned.memory_gb:,.1f} GB |")
    return "\n".join(rows)


def cameras(results: dict[str, Any], figures: Figures) -> str:
    """The plans for cameras that send one image per second each, as a Markdown table.

    Args:
        results: of benchmarks/results.json, with those of ``make bench-images``.
        figures: all but the requests per core, which depend on the image.
    """
    rows = ["| image | requests/s per core | cameras | pods = cores | memory |", "|---|---:|---:|---:|---:|"]
    for line in results["images"]["lines"]:
        image, separator, _ = line["measure"].partition(_IMAGE_RATE)
        if not separator:
            continue
        for count in CAMERAS:
            planned = plan(count, 1, replace(figures, requests_per_core=line["ours"]))
            rows.append(
                f"| {image} | {line['ours']:.0f} | {count:,} | {planned.pods:,} | {planned.memory_gb:,.1f} GB |"
            )
    return "\n".join(rows)


def measure_model_mb(models: int) -> float:
    """Measures the memory that each further model adds to a running service, in MB.

    Args:
        models: number of further models: copies of the shipped one, each loaded by one request.

    Raises:
        BenchmarkError: the service did not start or did not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = _copies(Path(folder) / "store", models)
        port = free_port()
        variables = {"ANOMALY_MODEL_STORE": str(store.root), "ANOMALY_MODEL": "copy-0", "ANOMALY_PORT": str(port)}
        image = (_ROOT / "app" / "api" / "static" / "samples" / "five.png").read_bytes()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:

            def scores(model: int) -> bool:
                headers = {"Content-Type": "image/png"}
                with contextlib.suppress(httpx.TransportError):
                    answer = client.post(f"/score?model=copy-{model}", content=image, headers=headers)
                    return answer.status_code == httpx.codes.OK
                return False

            with pinned_server(
                [sys.executable, "-m", "app"],
                lambda: scores(0),
                log=Path(folder) / "log",
                environment=variables,
                folder=_ROOT,
                cores=[min(os.sched_getaffinity(0))],
            ) as server:
                return _growth(server, scores, models)


def _growth(server: Server, scores: Callable[[int], bool], models: int) -> float:
    before = server.resident_bytes()
    for model in range(1, models + 1):
        if not scores(model):
            raise BenchmarkError(f"model {model} of {models} did not answer")
    return (server.resident_bytes() - before) / models / _MB


def _copies(root: Path, models: int) -> ModelStore:
    """A store that contains the shipped model under 1 + ``models`` names."""
    manifest = ModelStore(_ROOT / "model_store").manifest(_MODEL)
    folder = _ROOT / "model_store" / _MODEL / manifest.version
    files = {name: (folder / name).read_bytes() for name in manifest.files}
    store = ModelStore(root)
    for model in range(models + 1):
        store.publish(manifest.model_copy(update={"name": f"copy-{model}", "version": new_version()}), files)
    return store


def main() -> int:
    """Prints the table, after measuring if ``--measure-models`` says so; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity")
    parser.add_argument("--requests-per-s", type=float, nargs="+", default=LOADS, help="loads to plan for")
    parser.add_argument("--models", type=int, nargs="+", default=MODELS, help="numbers of models in memory")
    parser.add_argument("--per-core", type=float, help="requests/s per core (default: the measured figure)")
    parser.add_argument(
        "--measure-models", type=int, metavar="N", help="measure the memory of each of N further models"
    )
    options = parser.parse_args()
    results = json.loads(_RESULTS.read_text())
    if options.measure_models:
        try:
            model_mb = measure_model_mb(options.measure_models)
        except BenchmarkError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        results["capacity"] = {"models": options.measure_models, "model_mb": model_mb}
        _RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    figures = measured(results)
    if options.per_core:
        figures = Figures(options.per_core, figures.worker_mb, figures.model_mb)
    print(report(figures, options.requests_per_s, options.models))
    print(f"\nCameras, one image per second each:\n\n{cameras(results, figures)}")
    return 0


def report(figures: Figures, loads: list[float] = LOADS, models: list[int] = MODELS) -> str:
    """The figures as text, and the table."""
    return (
        f"{figures.requests_per_core:,.0f} requests/s per core at full load, planned utilisation "
        f"{figures.utilisation:.0%}, spare pods: {figures.spare_pods}; {figures.worker_mb:.0f} MB per worker with one "
        f"model, {figures.model_mb:.1f} MB per further model.\n\n" + _table(loads, models, figures)
    )


if __name__ == "__main__":
    sys.exit(main())
