"""What an actor does: paths → files → the service's own engine → rows."""

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
from app.inference.errors import InferenceError
from app.inference.serving.batch_scorer import Scored
from app.inference.serving.engine import Engine
from bulk.errors import CannotRun
from bulk.storage import first_line, is_remote, locate

PATH: Final = "path"
OUTCOME: Final = pa.schema(
    {
        PATH: pa.large_string(),
        "status": pa.string(),
        "verdict": pa.string(),
        "score": pa.float64(),
        "p_value": pa.float64(),
        "mse": pa.float64(),
        "warnings": pa.list_(pa.string()),
        "error": pa.string(),
    }
)
"""What an actor says of each image: named and meant as in the rows of ``app.client``."""

_LARGEST_FILE: Final = 256 * 2**20  # as in app.client: reading on would only fill memory
_READERS: Final = 16  # a bucket answers in tens of milliseconds, whatever else it is asked meanwhile


@dataclass(frozen=True)
class Judge:
    """A verified version of a model at a false-alarm rate. It carries the version's files: workers need no store.

    Attributes:
        files: name → content, as the manifest that was verified lists them, and the manifest.
    """

    model: str
    version: str
    false_alarm_rate: float
    threshold: float
    files: dict[str, bytes]

    @classmethod
    def appoint(cls, store: ModelStore, model: str, version: str | None, false_alarm_rate: float | None) -> Self:
        """Verifies a version as the service does, and settles the threshold.

        Args:
            store: where the model lies.
            model: its name.
            version: which; ``None``: the one that is served.
            false_alarm_rate: ``None``: the one that the model was calibrated for.

        Raises:
            UnknownModel, BundleRejected: the store has no such thing, or it fails verification.
            UnsupportedFalseAlarmRate: the rate is out of range or too fine.
        """
        bundle = store.load(model, version or store.current(model))
        manifest = bundle.manifest
        rate = manifest.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
        threshold = bundle.calibration.threshold(rate, manifest.guarantee)
        files = {name: store.file(manifest, name) for name in manifest.files}
        return cls(model, manifest.version, rate, threshold, {**files, MANIFEST_FILE: manifest.to_bytes()})


class Scorer:
    """One actor, one process, one thread of torch.

    Args:
        judge: what to score with. It is verified once more: another processor must not change the golden score.
        batch_size: images in one forward pass, and in memory as files twice.
        max_pixels: the largest width × height that is decoded.
        base: the folder that relative paths start from.
    """

    def __init__(self, judge: Judge, *, batch_size: int, max_pixels: int, base: str) -> None:
        torch.set_num_threads(1)
        self._threshold = judge.threshold
        self._batch_size = batch_size
        self._base = base
        self._engine = Engine(max_batch=batch_size, queue_size=batch_size, max_pixels=max_pixels, decode_threads=1)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        with tempfile.TemporaryDirectory() as folder:
            version = Path(folder, judge.model, judge.version)
            for name, content in judge.files.items():
                (version / name).parent.mkdir(parents=True, exist_ok=True)
                (version / name).write_bytes(content)
            bundle = ModelStore(Path(folder)).load(judge.model, judge.version)
        self._served = asyncio.run(self._engine.serve(bundle))

    def __call__(self, block: pa.Table) -> pa.Table:
        """Scores a block of paths; whatever is wrong with an image stands in its row."""
        return pa.Table.from_pylist(asyncio.run(self._score(block[PATH].to_pylist())), OUTCOME)

    async def _score(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        batches = [paths[at : at + self._batch_size] for at in range(0, len(paths), self._batch_size)]
        rows: list[dict[str, Any]] = []
        ahead = self._start_reading(batches[0]) if batches else ()
        for batch, following in zip(batches, [*batches[1:], []], strict=True):
            contents, ahead = ahead, self._start_reading(following)
            outcomes = await self._outcomes(list(contents))
            rows += [self._row(path, outcome) for path, outcome in zip(batch, outcomes, strict=True)]
        return rows

    def _start_reading(self, paths: Sequence[str]) -> Iterable[bytes | OSError]:
        """From a network the next batch is read while this one is scored; from a disk it is read when it is due."""
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
        except (CannotRun, pa.ArrowInvalid, ValueError) as error:  # a path that no file system takes
            return OSError(first_line(error))

    async def _outcomes(self, contents: Sequence[bytes | OSError]) -> list[Scored | InferenceError | OSError]:
        files = [content for content in contents if isinstance(content, bytes)]
        scored = iter(await self._engine.score_files(self._served, files))
        return [next(scored) if isinstance(content, bytes) else content for content in contents]

    def _row(self, path: str, outcome: Scored | InferenceError | OSError) -> dict[str, Any]:
        if not isinstance(outcome, Scored):
            return {PATH: path, "status": "rejected", "error": first_line(outcome)}
        return {
            PATH: path,
            "status": "scored",
            "verdict": "anomaly" if outcome.score > self._threshold else "normal",
            "score": outcome.score,
            "p_value": outcome.p_value,
            "mse": outcome.mse,
            "warnings": outcome.warnings,
        }
