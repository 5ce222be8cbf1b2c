"""Scores stored images on a Ray cluster, or on all cores of one machine. See ``--help``."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import ActorPoolStrategy

import app
from app.files.search import PassedOver
from app.inference.bundles.signing import TrustedKeys, parse_public_keys
from app.inference.bundles.store import ModelStore
from app.inference.errors import InferenceError
from bulk.errors import CannotRun
from bulk.results import Results
from bulk.scoring import PATH, ModelSnapshot, ScoringActor
from bulk.storage import find_images, first_line

ROOT: Final = Path(app.__file__).resolve().parents[1]

_BLOCK: Final = 1024  # images per task of an actor: between a tenth of a second and a minute of work

_DESCRIPTION: Final = """\
Scores stored images with Ray: each image once, with the decoding, the model and the verdicts of the service.

  score_dataset.py photos/ --output scores/                      all cores of this machine
  score_dataset.py s3://bucket/photos --output s3://bucket/scores
  score_dataset.py paths.parquet --output scores/                the paths or URLs in its column `path`
  RAY_ADDRESS=auto score_dataset.py photos/ --output scores/     a cluster; photos/ must exist on every node
"""

_EPILOG: Final = """\
The output is a folder of Parquet files with one row per image: path, status (scored, rejected), verdict (normal,
anomaly), score, threshold, p_value, mse, false_alarm_rate, model, version, warnings, boxes (of the regions), error,
fdr. The row of an image that cannot be read contains the reason. The same command resumes an interrupted run. Start
only one run at a time per output. Credentials and endpoints of buckets come from the environment (AWS_ENDPOINT_URL, …).

exit status: 0 completed, 1 the cluster or the output failed, 2 the job could not start, 130 Ctrl-C
"""


@dataclass
class Tally:
    """Counts the results of this run and measures the rate."""

    images: int = 0
    anomalies: int = 0
    rejected: int = 0
    undecided: int = 0
    began: float = field(default_factory=time.perf_counter)
    first: tuple[int, float] | None = None

    def count(self, rows: pa.Table) -> None:
        """Adds finished rows."""
        self.images += len(rows)
        self.anomalies += pc.sum(pc.equal(rows["verdict"], "anomaly")).as_py() or 0
        self.rejected += pc.sum(pc.equal(rows["status"], "rejected")).as_py() or 0
        self.undecided += pc.sum(pc.and_(pc.equal(rows["status"], "scored"), pc.is_null(rows["verdict"]))).as_py() or 0
        self.first = self.first or (self.images, time.perf_counter())

    def summary(self) -> str:
        """The figures as one line. The rate starts with the first rows, because workers take seconds to start."""
        now = time.perf_counter()
        count, since = self.first or (0, self.began)
        decided = self.images - self.rejected - self.undecided
        verdicts = (
            f"{self.undecided:,} scored"
            if self.undecided
            else f"{decided - self.anomalies:,} normal, {self.anomalies:,} anomalies"
        )
        return (
            f"{self.images:,} images in {now - self.began:.1f} s "
            f"({(self.images - count) / (now - since):,.0f} images/s after the workers were ready): "
            f"{verdicts}, {self.rejected:,} rejected"
        )


def main() -> int:
    """Runs the job that the command line describes; returns the exit status."""
    parser = _parser()
    options = parser.parse_args()
    if options.mixed and options.fdr is not None:
        parser.error("--fdr decides all rows of the output together, which must be of one model; leave out --mixed")
    try:
        trusted = options.trusted_keys and TrustedKeys(parse_public_keys(options.trusted_keys.read_text()))
        store = ModelStore(options.model_store, trusted)
        snapshot = ModelSnapshot.take(store, options.model, options.version, options.false_alarm_rate, options.fdr)
        results = Results(options.output, snapshot, rows_per_file=options.rows_per_file)
        if options.retry_rejected:
            results.forget_rejected()
        earlier = results.earlier(mixed=options.mixed)
        passed_over = PassedOver()
        images = find_images(options.source, options.path_column, passed_over)
    except (InferenceError, CannotRun, OSError) as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
        return 2
    remaining = images.filter(pc.invert(pc.is_in(images, earlier)))
    print(f"{len(remaining):,} images to score, {len(images) - len(remaining):,} already scored", file=sys.stderr)
    for line in passed_over.lines():
        print(line, file=sys.stderr)
    if not len(remaining) and options.fdr is None:
        return 0
    try:
        tally = _run(options, snapshot, remaining, results) if len(remaining) else None
        flagged = None if options.fdr is None else results.decide(options.fdr)
    except (ray.exceptions.RayError, CannotRun, OSError) as error:
        print(f"error: {_cause(error)}; run the same command again to resume", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    if tally:
        print(f"{tally.summary()} → {options.output}")
    if flagged is not None:
        print(f"{flagged:,} anomalies in all rows at a false discovery rate of {options.fdr:g} → {options.output}")
    return 0


def _run(options: argparse.Namespace, snapshot: ModelSnapshot, images: pa.ChunkedArray, results: Results) -> Tally:
    tally = Tally()
    _connect()
    blocks = list(_blocks(images))
    default = max(1, min(len(blocks), int(ray.cluster_resources().get("CPU", 1))))
    min_actors, max_actors = options.actors or (default, default)
    scored = ray.data.from_arrow(blocks).map_batches(
        ScoringActor,
        fn_constructor_kwargs={
            "snapshot": snapshot,
            "batch_size": options.batch_size,
            "max_pixels": options.max_pixels,
            "base": os.getcwd(),  # noqa: PTH109
        },
        batch_size=None,  # one block at a time; the actor splits it into batches
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=min_actors, max_size=max_actors),
        num_cpus=1,
    )
    try:
        for rows in scored.iter_batches(batch_size=None, batch_format="pyarrow"):
            results.add(rows)
            tally.count(rows)
    finally:
        results.flush()
    return tally


def _connect() -> None:
    """Connects to the cluster at ``RAY_ADDRESS``, or starts one on this machine, and sends our code to it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    code = {"py_modules": [str(ROOT / "app"), str(Path(__file__).with_name("bulk"))]}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(runtime_env=code, log_to_driver=False, logging_level=logging.WARNING)
    else:
        ray.init(
            address="local",
            runtime_env=code,
            log_to_driver=False,
            logging_level=logging.WARNING,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
        )


def _blocks(images: pa.ChunkedArray) -> Iterator[pa.Table]:
    for at in range(0, len(images), _BLOCK):
        yield pa.table({PATH: images.slice(at, _BLOCK)})


def _cause(error: Exception) -> str:
    """The cause of an error: the last line of the traceback that Ray returns from a worker."""
    return first_line(error) if isinstance(error, OSError) else str(error).strip().splitlines()[-1].strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="score_dataset.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=27, width=118),
    )
    add = parser.add_argument
    add(
        "source", help="a folder, the URL of a bucket, or a Parquet file or folder (*.parquet) that lists paths or URLs"
    )
    add("--output", required=True, metavar="FOLDER", help="folder or bucket for the results, as Parquet files")
    add(
        "--rows-per-file",
        type=_whole,
        default=100_000,
        metavar="N",
        help="approximate number; fewer if they take more than 30 s (default: %(default)s)",
    )
    add(
        "--path-column",
        default="path",
        metavar="NAME",
        help="column of a Parquet source with the paths (default: %(default)s)",
    )
    add(
        "--model-store",
        type=Path,
        default=ROOT / "model_store",
        metavar="FOLDER",
        help="folder of the model store, needed on this machine only (default: that of the checkout)",
    )
    add("--trusted-keys", type=Path, metavar="FILE", help="public keys: refuse a version that none of them has signed")
    add("--model", default="mnist-5", metavar="NAME", help="a model in the store (default: %(default)s)")
    add("--version", help="one of its versions (default: the current one)")
    rate = parser.add_mutually_exclusive_group().add_argument
    rate("--false-alarm-rate", type=float, metavar="RATE", help="between 0 and 1 (default: that of the model)")
    rate(
        "--fdr",
        type=_share,
        metavar="RATE",
        help="instead: decide all rows of the output together, at the end, so that on average at most this share of "
        "the anomalies is normal (Benjamini-Hochberg)",
    )
    add("--batch-size", type=_whole, default=32, metavar="N", help="images per forward pass (default: %(default)s)")
    add(
        "--actors",
        type=_range,
        metavar="MIN,MAX",
        help="number of scoring processes, one core each (default: the cores of the cluster)",
    )
    add(
        "--max-pixels",
        type=_whole,
        default=25_000_000,
        metavar="N",
        help="largest accepted width × height (default: %(default)s)",
    )
    add("--retry-rejected", action="store_true", help="score images again that could not be read before")
    add(
        "--mixed",
        action="store_true",
        help="accept an output with results of another model, version or false-alarm rate",
    )
    return parser


def _whole(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _share(text: str) -> float:
    if not 0 < (number := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, not {number:g}")
    return number


def _range(text: str) -> tuple[int, int]:
    bounds = [_whole(part) for part in text.split(",")]
    if len(bounds) > 2 or bounds != sorted(bounds):  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"must be one number or MIN,MAX, not {text!r}")
    return bounds[0], bounds[-1]


if __name__ == "__main__":
    sys.exit(main())
