"""How soon drift detection notices a changed camera, and how often it raises false alarms: figures of docs/drift.md.

    python -m benchmarks.drift --data-dir …

The images are MNIST test images of the digit that the model was trained on, changed in ways in which a camera can
change. They are compared by the code of the service. A change begins at a random position in a window.
"""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter

from app.inference.bundles.bundle import Bundle
from app.inference.bundles.store import ModelStore
from app.inference.decisions.drift_test import FALSE_ALARM_PROBABILITY, WINDOW, compare, critical_value
from app.inference.images.decoding import open_image
from training.data.datasets import Source, load
from training.data.folders import NORMAL

Pixels = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.int64]

_GIVE_UP = 50  # windows
_MIN_ALARMS = 0.02  # share of windows; below it, the delay is not measured
_BATCH = 256


def blurred(radius: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    """Out of focus: a Gaussian blur with a radius in pixels."""

    def change(pixels: Pixels, _: np.random.Generator) -> Pixels:
        image = Image.fromarray(pixels.astype(np.uint8))
        return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float64)

    return change


def scaled(factor: float, plus: float = 0) -> Callable[[Pixels, np.random.Generator], Pixels]:
    """Another exposure, for values from 0 to 255."""
    return lambda pixels, _: factor * pixels + plus


def noisy(deviation: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    """Gaussian noise, for values from 0 to 255."""
    return lambda pixels, random: pixels + random.normal(0, deviation, pixels.shape)


CHANGES = {
    "no change": scaled(1),
    "blur, radius 0.5": blurred(0.5),
    "blur, radius 1": blurred(1),
    "blur, radius 1.5": blurred(1.5),
    "blur, radius 2": blurred(2),
    "dimmed to 85 %": scaled(0.85),
    "dimmed to 70 %": scaled(0.7),
    "dimmed to 50 %": scaled(0.5),
    "stray light, +10 of 255": scaled(1, 10),
    "stray light, +20 of 255": scaled(1, 20),
    "overexposed, × 1.5": scaled(1.5),
    "noise, sd 10 of 255": noisy(10),
    "noise, sd 20 of 255": noisy(20),
    "noise, sd 40 of 255": noisy(40),
}
ANOMALIES = (0.02, 0.05, 0.1, 0.2, 0.3)


def ranks_of(bundle: Bundle, images: Sequence[Pixels]) -> Ranks:
    """The ranks of images that go through the service's decoding, as PNG files."""
    tensors = [open_image(_png(pixels), max_pixels=10**6).decode(bundle.spec).tensor for pixels in images]
    batches = [torch.stack(tensors[start : start + _BATCH]) for start in range(0, len(tensors), _BATCH)]
    scores = [score for batch in batches for score in bundle.score_batch(batch).score]
    return np.array([bundle.calibration.independent.rank(score) for score in scores])


def _png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def alarms(ranks: Ranks, size: int) -> bool:
    """Whether a window raises an alarm.

    Args:
        ranks: of the images of the window.
        size: number of calibration images.
    """
    return compare(ranks.tolist(), size).statistic >= critical_value(WINDOW, size)


def until_noticed(before: Ranks, after: Ranks, size: int, random: np.random.Generator) -> float:
    """The number of images from the change to the end of the first window with an alarm; infinite if there is none."""
    unchanged = int(random.integers(WINDOW))
    for window in range(_GIVE_UP):
        old = unchanged if window == 0 else 0
        ranks = np.concatenate(
            (random.choice(before, old, replace=False), random.choice(after, WINDOW - old, replace=False))
        )
        if alarms(ranks, size):
            return (window + 1) * WINDOW - unchanged
    return np.inf


def false_alarms(size: int, sets: int, windows: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """The share of unchanged windows with an alarm, for each of many calibration sets."""
    shares = []
    for _ in range(sets):
        calibration = np.sort(random.random(size))
        drawn = np.searchsorted(calibration, random.random((windows, WINDOW)))
        shares.append(np.mean([alarms(ranks, size) for ranks in drawn]))
    return np.array(shares)


def main() -> int:
    """Prints the tables; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drift", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that contains MNIST")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of the model store")
    parser.add_argument("--model", default="mnist-5", help="a model that was trained on one digit")
    parser.add_argument("--trials", type=int, default=400, help="number of windows and changes of each kind")
    options = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    store = ModelStore(options.store)
    bundle = store.load(options.model, store.current(options.model))
    size = bundle.calibration.effective_size
    data = load(Source("mnist", normal=(int(bundle.manifest.data.normal),), data_dir=options.data_dir))
    kinds = np.array(data.test_kinds)
    pixels = 255 * data.test[:][:, 0].double().numpy()
    normal, others = pixels[kinds == NORMAL], pixels[kinds != NORMAL]

    print(f"| calibration images | new set for each window | worst of 20 sets | worst of {options.trials} sets |")
    print("|---|---|---|---|")
    for calibration_size in (30, 300, 1085):
        mean = false_alarms(calibration_size, 50 * options.trials, 1, random).mean()
        worst = np.quantile(false_alarms(calibration_size, options.trials, options.trials, random), [0.95, 1])
        print(f"| {calibration_size:,} | {mean:.2%} | {worst[0]:.2%} | {worst[1]:.2%} |", flush=True)

    print(f"\n| {len(normal)} test images | windows with an alarm | images until the alarm: half | 19 of 20 |")
    print("|---|---|---|---|")
    before = ranks_of(bundle, list(normal))
    mixtures = {f"{share:.0%} anomalies": share for share in ANOMALIES}
    anomalous = ranks_of(bundle, list(others[random.permutation(len(others))[:2000]]))
    for name in (*CHANGES, *mixtures):
        if name in mixtures:
            count = round(len(before) * mixtures[name] / (1 - mixtures[name]))
            after = np.concatenate((before, random.choice(anomalous, count)))
        else:
            after = ranks_of(bundle, [CHANGES[name](image, random) for image in normal])
        alarmed = np.mean([alarms(random.choice(after, WINDOW, replace=False), size) for _ in range(options.trials)])
        row = f"| {name} | {alarmed:.1%} |"
        if name == "no change" or alarmed < _MIN_ALARMS:
            print(row, "– | – |", flush=True)
            continue
        images = [until_noticed(before, after, size, random) for _ in range(options.trials)]
        half, most = np.quantile(images, [0.5, 0.95], method="higher")
        print(row, *(f"{many:,.0f} |" if many < np.inf else f"over {_GIVE_UP * WINDOW:,} |" for many in (half, most)))
    print(f"\nWindows of {WINDOW}; false-alarm probability {FALSE_ALARM_PROBABILITY:.1%}; {size:,} calibration images.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
