"""Compares scoring stored images on Ray with a hand-written loop over the same engine, both on two cores.

The loop is what one would write without Ray: two processes with one torch thread each read files and score them in
batches with the service's engine, and their parent writes Parquet. Two rates are measured: *whole*, from start to end,
and *steady*, from the moment when the first results arrive.

    python -m benchmarks.ray_dataset --data-dir … [--images 60000] [--rounds 3]

Needs Linux, the extra ``ray`` and the MNIST files, from which the images are made.
"""

import argparse
import asyncio
import gzip
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import torch
from PIL import Image

from app.inference.bundles.store import ModelStore
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.batch_scorer import Scored
from app.inference.serving.engine import Engine
from app.inference.serving.scoring import score

_ROOT: Final = Path(__file__).resolve().parent.parent
_SCRIPT: Final = _ROOT / "deploy" / "ray" / "score_dataset.py"
_MODEL: Final = "mnist-5"
_PROCESSES: Final = 2
_BATCH: Final = 32
_CHUNK: Final = 1024  # images, as in the Ray job
_HEADER: Final = 16
_SIDE: Final = 28


class Row(NamedTuple):
    """A result row of the loop."""

    path: str
    score: float | None
    p_value: float | None
    mse: float | None
    verdict: str | None
    error: str | None


class Rate(NamedTuple):
    """Images per second."""

    whole: float
    steady: float


@dataclass
class Worker:
    """The engine and the model of a process of the loop."""

    engine: Engine
    served: ServedModel


_workers: list[Worker] = []


def start_worker() -> None:
    """Loads the model, once per process."""
    torch.set_num_threads(1)
    store = ModelStore(_ROOT / "model_store")
    engine = Engine(max_batch=_BATCH, queue_size=_BATCH, max_pixels=25_000_000, decode_threads=1)
    served = asyncio.run(engine.serve(store.load(_MODEL, store.current(_MODEL))))
    _workers.append(Worker(engine, served))


def score_chunk(paths: Sequence[str]) -> list[Row]:
    """Scores the files of a chunk, in a process of the loop."""
    (worker,) = _workers
    return asyncio.run(score_batches(worker, paths))


async def score_batches(worker: Worker, paths: Sequence[str]) -> list[Row]:
    """Scores files in batches, within one event loop: starting one for each batch would take longer than the batch."""
    point = worker.served.bundle.operating_point()
    rows = []
    for at in range(0, len(paths), _BATCH):
        batch = paths[at : at + _BATCH]
        files = [Path(path).read_bytes() for path in batch]  # noqa: ASYNC240  nothing else runs in this event loop
        results = await score(worker.engine, worker.served, files, point)
        for path, outcome in zip(batch, results.outcomes, strict=True):
            if isinstance(outcome, Scored):
                verdict = point.verdict(outcome.score)
                rows.append(Row(path, outcome.score, outcome.p_value, outcome.mse, verdict, None))
            else:
                rows.append(Row(path, None, None, None, None, str(outcome.reason)))
    return rows


def loop_by_hand(folder: Path, output: Path) -> Rate:
    """Scores all images with two processes and writes one Parquet file."""
    began = time.perf_counter()
    paths = sorted(str(path) for path in folder.rglob("*.png"))
    chunks = [paths[at : at + _CHUNK] for at in range(0, len(paths), _CHUNK)]
    with multiprocessing.get_context("spawn").Pool(_PROCESSES, start_worker) as pool:
        done = pool.imap_unordered(score_chunk, chunks)
        rows = next(done)
        ready, since = len(rows), time.perf_counter()
        for chunk in done:
            rows += chunk
        output.mkdir()
        pq.write_table(pa.Table.from_pylist([row._asdict() for row in rows]), output / "rows.parquet")
        now = time.perf_counter()
    return Rate(len(rows) / (now - began), (len(rows) - ready) / (now - since))


def job_on_ray(folder: Path, output: Path) -> Rate:
    """Scores all images with ``score_dataset.py``, on a Ray cluster on this machine."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    began = time.perf_counter()
    done = subprocess.run(  # noqa: S603  a fixed command
        [sys.executable, str(_SCRIPT), str(folder), "--output", str(output), "--actors", str(_PROCESSES)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    figures = re.search(r"([\d,]+) images in .*\(([\d,]+) images/s after", done.stdout)
    if figures is None:
        raise SystemExit(f"unexpected output of {_SCRIPT.name}: {done.stdout!r}")
    count, steady = (int(number.replace(",", "")) for number in figures.groups())
    return Rate(count / seconds, steady)


def require_same(one: Path, other: Path) -> None:
    """Checks that both outputs contain each image once, with the same score up to rounding."""
    mine, theirs = (
        pyarrow.dataset.dataset(folder).to_table(columns=["path", "score"]).sort_by("path") for folder in (one, other)
    )
    same_paths = mine["path"].to_pylist() == theirs["path"].to_pylist()
    if not same_paths or not np.allclose(mine["score"], theirs["score"], rtol=1e-5, atol=0):
        raise SystemExit("the scores of the two sides differ")


def write_images(data_dir: Path, folder: Path, count: int) -> None:
    """Writes MNIST's training images as PNG files, a thousand per folder."""
    source = data_dir / "MNIST" / "raw" / "train-images-idx3-ubyte"
    packed = source.with_name(source.name + ".gz")
    raw = source.read_bytes() if source.exists() else gzip.decompress(packed.read_bytes())
    pixels = np.frombuffer(raw, np.uint8, offset=_HEADER).reshape(-1, _SIDE, _SIDE)
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:06}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[number % len(pixels)]).save(path)


def main() -> None:
    """Prints images per second and ratios: medians, minimum and maximum of all rounds."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ray_dataset", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that contains MNIST")
    parser.add_argument("--images", type=int, default=60_000, help="number of images per run")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; each runs both sides")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_PROCESSES])
    sides = {"by hand": loop_by_hand, "on Ray": job_on_ray}
    rounds: list[dict[str, Rate]] = []
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        write_images(options.data_dir, images, options.images)
        for number in range(options.rounds):
            order = list(sides) if number % 2 == 0 else list(sides)[::-1]
            rounds.append({name: sides[name](images, Path(folder, name)) for name in order})
            require_same(*(Path(folder, name) for name in sides))
            for name in sides:
                shutil.rmtree(Path(folder, name))
    for what in Rate._fields:
        rates = {name: [getattr(each[name], what) for each in rounds] for name in sides}
        ratios = [ray / hand for hand, ray in zip(rates["by hand"], rates["on Ray"], strict=True)]
        print(
            f"{what:7} by hand {median(rates['by hand']):,.0f}, on Ray {median(rates['on Ray']):,.0f} images/s; "
            f"ratio {median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
