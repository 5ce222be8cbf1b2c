"""What a published model finds out of scope: foreign images, other products, and its own test images.

    python -m benchmarks.scope my-parts --model parts --others other-parts,bottles

Everything goes the way of the service: image files are decoded for the model, the bundle scores them, and the bundle's
own threshold decides.
"""

import argparse
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from app.inference.bundles.bundle import Bundle
from app.inference.bundles.store import ModelStore
from app.inference.decisions.scope import is_out_of_scope
from app.inference.images.decoding import decode
from app.inference.images.rendering import to_pixels
from benchmarks.errors import exit_status
from benchmarks.scope.foreign import Pixels, foreign_images, inverted, with_hand
from training.data.datasets import BUILT_IN, Dataset, Source, load
from training.data.folders import NORMAL
from training.data.images import Images
from training.errors import TrainingError
from training.evaluation.scores import outputs

_SEEDS: Final = 5  # images of each foreign kind
_CHANGED: Final = 20  # of the model's own normal images that are inverted, or have a hand before them
_MOST: Final = 200  # images of another data set
_MAX_PIXELS: Final = 10**8
_WIDTH: Final = 110


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    return exit_status(lambda: _run(options, Console(width=_WIDTH, highlight=False)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scope", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("data", help="what the model was trained on, with test images: a folder, or a built-in set")
    parser.add_argument("--normal", type=int, default=5, help="label of a built-in set that is normal")
    parser.add_argument("--model", required=True, help="name of the published model")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="where it is published")
    parser.add_argument("--others", default="", help="folders of other products, separated by commas")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="of built-in sets, and of decoded images")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


def _run(options: argparse.Namespace, console: Console) -> None:
    store = ModelStore(options.store)
    bundle = store.load(options.model, store.current(options.model))
    if bundle.manifest.scope is None:
        raise TrainingError(f"{options.model} was published before models said what is out of scope: train it again")
    table = Table(
        title=f"{options.model}, {bundle.manifest.scope.statistics}, limit {bundle.manifest.scope.limit:.2f}, "
        f"largest distance of an image of the fit part {bundle.manifest.scope.largest:.2f}"
    )
    for heading in ("images", "number", "out of scope", "anomalies", "least scope", "greatest scope"):
        table.add_column(heading, justify="left" if heading == "images" else "right")
    for kind, images in _kinds(options, bundle):
        table.add_row(kind, *_figures(bundle, images))
    console.print(table)


def _kinds(options: argparse.Namespace, bundle: Bundle) -> Iterator[tuple[str, Iterable[torch.Tensor]]]:
    """Names of kinds with their images (C, H, W), at the size and in the mode of the model."""
    own = _load(options.data, options, bundle)
    for kind in dict.fromkeys(own.test_kinds):
        positions = [at for at, each in enumerate(own.test_kinds) if each == kind]
        yield f"test, {kind}", own.test.select(positions)
    normal = _evenly(own.normal, _CHANGED)
    pixels = [to_pixels(image.expand(3, -1, -1)) for image in normal]
    yield f"{NORMAL}, inverted", [_decoded(inverted(each), bundle) for each in pixels]
    yield f"{NORMAL}, with a hand before it", [_decoded(with_hand(each), bundle) for each in pixels]
    sets = [foreign_images(seed) for seed in range(_SEEDS)]
    for kind in sets[0]:
        yield kind, [_decoded(each[kind], bundle) for each in sets]
    for other in filter(None, options.others.split(",")):
        yield f"other product, {Path(other).name}", _evenly(_load(other, options, bundle).normal, _MOST)


def _load(data: str, options: argparse.Namespace, bundle: Bundle) -> Dataset:
    spec = bundle.spec
    if data in BUILT_IN:
        return load(Source(data, normal=(options.normal,), data_dir=options.data_dir))
    size = spec.height, spec.width
    return load(Source(data, data_dir=options.data_dir, size=size, mode=spec.mode, fit=spec.fit))


def _evenly(images: Images, most: int) -> Images:
    return images.select(range(0, len(images), max(1, len(images) // most)))


def _decoded(pixels: Pixels, bundle: Bundle) -> torch.Tensor:
    """(C, H, W) by the service's own decoding of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return decode(file.getvalue(), bundle.spec, max_pixels=_MAX_PIXELS).tensor


def _figures(bundle: Bundle, images: Iterable[torch.Tensor]) -> list[str]:
    point = bundle.operating_point()
    scopes, anomalies, out = list[float](), 0, 0
    for image in images:
        scored = outputs(bundle.model, image[None])
        assert scored.scope is not None  # noqa: S101  the manifest says so
        is_anomaly = point.is_anomaly(scored.score[0])
        scopes += scored.scope
        anomalies += is_anomaly
        out += is_out_of_scope(scored.scope[0], is_anomaly=is_anomaly)
    return [str(len(scopes)), str(out), str(anomalies), f"{min(scopes):.2f}", f"{max(scopes):.2f}"]


if __name__ == "__main__":
    sys.exit(main())
