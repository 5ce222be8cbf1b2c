"""The actor: reads files by their paths, scores them with the service's engine, and returns rows."""

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa
import torch

from app.inference.bundles.bundle import MANIFEST_FILE
from app.inference.bundles.store import ModelStore
from app.inference.decisions.conformal import verdict
from app.inference.decisions.false_discovery import FalseDiscoveryRate
from app.inference.serving import scoring
from app.inference.serving.batch_scorer import Outcome, Rejected
from app.inference.serving.engine import Engine
from app.inference.serving.scoring import Results
from bulk.errors import CannotRun
from bulk.storage import first_line, is_remote, locate

PATH: Final = "path"
BOXES: Final = pa.list_(pa.list_(pa.int64(), 4))
OUTCOME: Final = pa.schema(
    {
        PATH: pa.large_string(),
        "status": pa.string(),
        "verdict": pa.string(),
        "score": pa.float64(),
        "p_value": pa.float64(),
        "mse": pa.float64(),
        "warnings": pa.list_(pa.string()),
        "boxes": BOXES,
        "error": pa.string(),
        "out_of_scope": pa.bool_(),
    }
)
"""The columns that an actor returns; names and meanings are those of ``app.client``."""

_LARGEST_FILE: Final = 256 * 2**20  # as in app.client, to bound memory
_READERS: Final = 16  # a read from a bucket takes tens of milliseconds, whether or not others run at the same time


@dataclass(frozen=True)
class ModelSnapshot:
    """A verified version of a model with its files and a threshold, so that workers need no model store.

    Attributes:
        model: name of the model.
        version: of the model.
        false_alarm_rate: of the verdicts.
        threshold: guarantees that rate; both are None with a false discovery rate.
        fdr: the false discovery rate by which all images are decided together, at the end of the job.
        files: name → content of all verified files, including the manifest.
    """

    model: str
    version: str
    false_alarm_rate: float | None
    threshold: float | None
    fdr: float | None
    files: dict[str, bytes]

    @classmethod
    def take(
        cls,
        store: ModelStore,
        model: str,
        version: str | None,
        false_alarm_rate: float | None,
        fdr: float | None = None,
    ) -> Self:
        """Verifies a version as the service does, and computes the threshold.

        Args:
            store: contains the model.
            model: name of the model.
            version: ``None``: the current one.
            false_alarm_rate: ``None``: that of the manifest.
            fdr: false discovery rate, instead.

        Raises:
            UnknownModel, BundleRejected: it does not exist or failed verification.
            UnsupportedFalseAlarmRate: a rate is outside (0, 1) or smaller than the calibration set supports.
        """
        bundle = store.load(model, version or store.current(model))
        manifest = bundle.manifest
        point: tuple[float | None, float | None] = (None, None)
        if fdr is None:
            point = bundle.operating_point(false_alarm_rate)
        else:
            FalseDiscoveryRate.of(fdr, bundle.calibration)
        files = {name: store.file(manifest, name) for name in manifest.files}
        return cls(model, manifest.version, *point, fdr, {**files, MANIFEST_FILE: manifest.to_bytes()})


class ScoringActor:
    """An actor: one process with one torch thread.

    Args:
        snapshot: scores the images. It is verified again, because the processor of the worker may be a different one.
        batch_size: number of images in one forward pass; twice as many files are in memory.
        max_pixels: the largest width × height that is accepted.
        base: the folder that relative paths start from.
    """

    def __init__(self, snapshot: ModelSnapshot, *, batch_size: int, max_pixels: int, base: str) -> None:
        torch.set_num_threads(1)
        self._threshold = snapshot.threshold
        self._batch_size = batch_size
        self._base = base
        self._engine = Engine(max_batch=batch_size, queue_size=batch_size, max_pixels=max_pixels, decode_threads=1)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        with tempfile.TemporaryDirectory() as folder:
            version = Path(folder, snapshot.model, snapshot.version)
            for name, content in snapshot.files.items():
                (version / name).parent.mkdir(parents=True, exist_ok=True)
                (version / name).write_bytes(content)
            bundle = ModelStore(Path(folder)).load(snapshot.model, snapshot.version)
        self._served = asyncio.run(self._engine.serve(bundle))

    def __call__(self, block: pa.Table) -> pa.Table:
        """Scores a block of paths; the rows of rejected images contain the reason."""
        return pa.Table.from_pylist(asyncio.run(self._score(block[PATH].to_pylist())), OUTCOME)

    async def _score(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        batches = [paths[at : at + self._batch_size] for at in range(0, len(paths), self._batch_size)]
        rows: list[dict[str, Any]] = []
        upcoming = self._start_reading(batches[0]) if batches else ()
        for batch, next_batch in zip(batches, [*batches[1:], []], strict=True):
            contents, upcoming = upcoming, self._start_reading(next_batch)
            outcomes, results = await self._outcomes(list(contents))
            rows += [self._row(path, outcome, results) for path, outcome in zip(batch, outcomes, strict=True)]
        return rows

    def _start_reading(self, paths: Sequence[str]) -> Iterable[bytes | OSError]:
        """Reads a batch: over a network in the background, from a disk when it is iterated over."""
        read: Callable[..., Iterable[bytes | OSError]] = self._readers.map if any(map(is_remote, paths)) else map
        return read(self._read, paths)

    def _read(self, path: str) -> bytes | OSError:
        try:
            file_system, name = locate(path, self._base)
            with file_system.open_input_file(name) as file:
                if file.size() > _LARGEST_FILE:
                    raise OSError(f"the file is larger than {_LARGEST_FILE // 2**20} MiB")
                return bytes(file.read())
        except OSError as error:
            return error
        except (CannotRun, pa.ArrowInvalid, ValueError) as error:  # a path that the file system does not accept
            return OSError(first_line(error))

    async def _outcomes(self, contents: Sequence[bytes | OSError]) -> tuple[list[Outcome | OSError], Results]:
        files = [content for content in contents if isinstance(content, bytes)]
        results = await scoring.score(self._engine, self._served, files, self._served.bundle.operating_point())
        outcomes = iter(results.outcomes)
        return [next(outcomes) if isinstance(content, bytes) else content for content in contents], results

    def _row(self, path: str, outcome: Outcome | OSError, results: Results) -> dict[str, Any]:
        if isinstance(outcome, Rejected | OSError):
            reason = outcome.reason if isinstance(outcome, Rejected) else outcome
            return {PATH: path, "status": "rejected", "error": first_line(reason)}
        return {
            PATH: path,
            "status": "scored",
            "verdict": None if self._threshold is None else verdict(outcome.score, self._threshold),
            "score": outcome.score,
            "p_value": outcome.p_value,
            "mse": outcome.mse,
            "warnings": results.warnings(outcome),
            "boxes": [region.box for region in results.regions(outcome)] if results.has_regions else None,
            "out_of_scope": results.out_of_scope(outcome),
        }
