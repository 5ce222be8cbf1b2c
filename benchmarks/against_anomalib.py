"""Compares the recipe ``features`` with anomalib's PatchCore and PaDiM, on equal terms.

    python -m benchmarks.against_anomalib my-parts --seeds 3 --threads 1

All models use the same decoded images, the same splits, the weights of the same backbone, the input size of the recipe,
and thresholds by the same split-conformal rule. Each is fitted on the fit part of a split, and scores the calibration
and the test images one at a time: ours with the archive that is published, anomalib's (``benchmarks/peers/anomalib/``)
in an environment of its own, which is created at first use. Times are of the processor, which other load on the machine
changes less than the time on the clock; with one thread on an idle machine they are the same.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from app.inference.bundles import torchscript
from app.inference.decisions.conformal import Calibration, anomaly_rate
from benchmarks.accuracy.pool import read_pool
from benchmarks.errors import exit_status
from benchmarks.peers.environments import ENVIRONMENTS, install, pinned_version, run_command
from benchmarks.peers.servers import SERVERS
from training.data.datasets import Dataset, Source
from training.data.folders import NORMAL
from training.data.splitting import Partition, split
from training.features.pretrained import load_pretrained
from training.methods import method_of
from training.model.method import Progress
from training.model.recipes import FEATURES
from training.model.scoring_rules import FEATURE_RULE

PEER: Final = "anomalib"
RATE: Final = 0.05
"""Guaranteed false-alarm rate."""

_OURS: Final = "features"
_TITLES: Final = {_OURS: "recipe features", "patchcore": "PatchCore", "padim": "PaDiM"}
_WARM_UP: Final = 3


@dataclass(frozen=True)
class Scored:
    """What a model made of one split.

    Attributes:
        calibration: scores of the calibration images.
        test: scores of the test images.
        seconds_to_fit: processor time from decoded images to a model that can score.
        seconds: processor time of each image that was scored, from the decoded image to the score.
    """

    calibration: npt.NDArray[np.float64]
    test: npt.NDArray[np.float64]
    seconds_to_fit: float
    seconds: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """The figures of a model on one split.

    Attributes:
        auroc: area under the ROC curve.
        found: share of the anomalies above the threshold of ``RATE``.
        alarmed: share of the normal test images above it.
        ms: median processor time of an image, in milliseconds.
        seconds_to_fit: processor time.
    """

    auroc: float
    found: float
    alarmed: float
    ms: float
    seconds_to_fit: float


Model = Callable[[Partition, int], Scored]
"""Split and seed → scores."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the comparison and prints its table; returns the exit status."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    data = read_pool(Source(options.folder, data_dir=options.data_dir, groups=options.groups), FEATURES).data
    with tempfile.TemporaryDirectory() as scratch:
        figures = _compare(data, _models(options, data, Path(scratch)), options.seeds)
    print(f"\n{table(figures)}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against_anomalib", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", help="normal images and labelled test images, in a layout that training reads")
    parser.add_argument("--models", default=",".join(_TITLES), help="models, separated by commas")
    parser.add_argument("--seeds", type=int, default=3, help="number of splits")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--groups", default="folder", help="folder, none or a regular expression")
    parser.add_argument(
        "--coreset-ratio", type=float, default=0.1, help="share of the features that PatchCore keeps, as anomalib's"
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where decoded images are cached")
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, help="folder of the environment, created at first use"
    )
    options = parser.parse_args(arguments)
    options.models = options.models.split(",")
    unknown = [name for name in options.models if name not in _TITLES]
    if unknown:
        parser.error(f"unknown model {', '.join(unknown)}; choose from {', '.join(_TITLES)}")
    options.environments = options.environments.expanduser().resolve()
    return options


def _models(options: argparse.Namespace, data: Dataset, scratch: Path) -> dict[str, Model]:
    """The chosen models, by their titles."""
    models: dict[str, Model] = {}
    peers: Peers | None = None
    for name in options.models:
        if name == _OURS:
            models[_TITLES[name]] = lambda parts, seed: score_with_ours(data, parts, seed)
            continue
        peers = peers or Peers(options, data, scratch)
        title = f"anomalib {pinned_version(PEER)}, {_TITLES[name]}"
        models[title + f", {options.coreset_ratio:.3g} of the features" * (name == "patchcore")] = peers.model(name)
    return models


def _compare(data: Dataset, models: dict[str, Model], seeds: int) -> dict[str, list[Figures]]:
    figures: dict[str, list[Figures]] = {title: [] for title in models}
    for seed in range(seeds):
        parts = split(data.groups, FEATURES, false_alarm_rate=RATE, seed=seed)
        print(
            f"split {seed}: {len(parts.fit)} images to fit, {len(parts.calibration)} to calibrate, "
            f"{len(data.test)} to test",
            flush=True,
        )
        groups = [data.groups[index] for index in parts.calibration]
        for title, score in models.items():
            began = time.perf_counter()
            figures[title].append(judge(score(parts, seed), groups, data.test_kinds))
            print(f"  {title}: AUROC {figures[title][-1].auroc:.3f}, {time.perf_counter() - began:.0f} s", flush=True)
    return figures


def judge(scored: Scored, groups: Sequence[str], test_kinds: Sequence[str]) -> Figures:
    """Calibrates and evaluates the scores of one model.

    Args:
        scored: the scores.
        groups: of the calibration images.
        test_kinds: ``normal`` or the kind of anomaly, one per test image.
    """
    anomalous = np.array(test_kinds) != NORMAL
    threshold = Calibration(scored.calibration.tolist(), groups).threshold_for(RATE)
    return Figures(
        auroc=float(roc_auc_score(anomalous, scored.test)),
        found=anomaly_rate(scored.test[anomalous].tolist(), threshold),
        alarmed=anomaly_rate(scored.test[~anomalous].tolist(), threshold),
        ms=1e3 * median(scored.seconds.tolist()),
        seconds_to_fit=scored.seconds_to_fit,
    )


@torch.inference_mode()
def score_with_ours(data: Dataset, parts: Partition, seed: int) -> Scored:
    """Fits the recipe, and scores with the archive that would be published."""
    began = time.process_time()
    method = method_of(FEATURES, FEATURE_RULE, data.spec, seed=seed)
    images = method.represent(data.normal, parts.fit, Progress(), copies=method.copies)
    fitted = method.fit(images, [data.groups[index] for index in parts.fit], images[[]], Progress())
    model = torchscript.load(torchscript.dump(fitted.network))
    seconds_to_fit = time.process_time() - began
    for index in range(_WARM_UP):
        model(data.test[[index]])
    scores, seconds = [], []
    for image in (*data.normal.select(parts.calibration), *data.test):
        began = time.process_time()
        _, _, score, *_ = model(image.unsqueeze(0))
        scores.append(float(score))
        seconds.append(time.process_time() - began)
    calibration, test = np.split(np.array(scores), [len(parts.calibration)])
    return Scored(calibration, test, seconds_to_fit, np.array(seconds))


class Peers:
    """anomalib's models, which exchange images and scores with this process as files.

    Args:
        options: with ``environments``, ``threads`` and ``coreset_ratio``.
        data: all images.
        scratch: folder for the files.

    Raises:
        BenchmarkError: the environment cannot be installed.
    """

    def __init__(self, options: argparse.Namespace, data: Dataset, scratch: Path) -> None:
        self._python = install(PEER, options.environments / PEER) / "python"
        self._options = options
        self._scratch = scratch
        self._images = scratch / "images.npz"
        write_images(self._images, data)

    def model(self, name: str) -> Model:
        """One of the models; it raises BenchmarkError when anomalib fails."""

        def score(parts: Partition, seed: int) -> Scored:
            split_file, scores_file = self._scratch / "split.npz", self._scratch / "scores.npz"
            np.savez(split_file, fit=np.array(parts.fit), calibration=np.array(parts.calibration))
            settings = {"model": name, "seed": seed, "threads": self._options.threads}
            settings["coreset-ratio"] = self._options.coreset_ratio
            run_command(
                [
                    str(self._python), "models.py", str(self._images), str(split_file), str(scores_file),
                    *(word for option, value in settings.items() for word in (f"--{option}", str(value))),
                ],
                SERVERS / PEER,
                {"OMP_NUM_THREADS": str(self._options.threads)},
            )  # fmt: skip
            return read_scores(scores_file)

        return score


def write_images(file: Path, data: Dataset) -> None:
    """Writes all images, and the weights of our backbone with the normalisation that they need."""
    pretrained = load_pretrained(FEATURES.backbone)
    weights = pretrained.network.state_dict()
    arrays: dict[str, Any] = {f"weight:{name}": tensor.numpy() for name, tensor in weights.items()}
    arrays |= {"normal": data.normal[:].numpy(), "test": data.test[:].numpy()}
    mean, std = (np.array(each, np.float32).reshape(1, 3, 1, 1) for each in (pretrained.mean, pretrained.std))
    np.savez(file, mean=mean, std=std, **arrays)


def read_scores(file: Path) -> Scored:
    """Reads what anomalib's process wrote."""
    with np.load(file) as scores:
        return Scored(scores["calibration"], scores["test"], float(scores["seconds_to_fit"]), scores["seconds"])


def table(figures: dict[str, list[Figures]]) -> str:
    """A row per model: means over the splits, with the range where there are several."""
    headings = (
        "model", "splits", "AUROC", f"found at {RATE:.0%}", f"false alarms at {RATE:.0%}", "processor ms per image",
        "processor s to fit",
    )  # fmt: skip
    rows = [headings, ("---",) * len(headings)]
    for title, of_model in figures.items():
        rows.append(
            (
                title,
                str(len(of_model)),
                _spread([each.auroc for each in of_model]),
                _spread([each.found for each in of_model]),
                _spread([each.alarmed for each in of_model]),
                f"{mean(each.ms for each in of_model):.0f}",
                f"{mean(each.seconds_to_fit for each in of_model):.0f}",
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _spread(values: Sequence[float]) -> str:
    spread = f" [{min(values):.3f}–{max(values):.3f}]" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
