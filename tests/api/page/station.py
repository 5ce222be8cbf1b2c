"""A station of parts: a model with a region of interest, trained on generated pictures; its server keeps labels."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image
from playwright.sync_api import Page, expect

from app.inference.bundles.manifest import InterestRecord
from app.inference.bundles.store import ModelStore
from app.inference.decisions.regions import Cells
from app.inference.images.model_input import Fit, InputSpec
from tests.support import Server, encode, make_bundle, running_server
from training.data.datasets import Source
from training.data.interest import Rectangle
from training.model.recipes import LINEAR
from training.model.scoring_rules import SCORING_RULES
from training.pipeline import train
from training.run import Run

SIDE = 32
COUNTED = Rectangle(0, 0, 75, 100, in_percent=True)
"""The region of interest of the model ``parts``."""

OTHER_FITS: tuple[Fit, ...] = ("pad", "crop")
"""Names of models with a region of interest, and how they bring images to their input."""


@dataclass(frozen=True)
class Station:
    """A server of the model ``parts`` and of ``OTHER_FITS``; it keeps labels and their images."""

    server: Server
    store: ModelStore
    labels: Path
    images: Path

    def forget_labels(self) -> None:
        self.labels.write_bytes(b"")
        for image in self.images.iterdir():
            image.unlink()


def surface(number: int, size: tuple[int, int] = (SIDE, SIDE), *, spot: bool = False) -> Image.Image:
    """Smooth grey with a little noise, different for each number; a spot lies at a quarter of the width."""
    width, height = size
    noise = np.random.default_rng(number).normal(0, 2, (height, width))
    image = Image.fromarray((np.linspace(90, 150, height)[:, None] + noise).astype(np.uint8))
    if spot:
        image.paste(250, (width // 8, height // 2 - height // 10, width // 8 + width // 5, height // 2 + height // 10))
    return image


@contextlib.contextmanager
def running_station(folder: Path) -> Iterator[Station]:
    parts = folder / "parts"
    for kind, spot, count in (("normal", False, 60), ("test/anomaly/deep-scratch", True, 4)):
        (parts / kind).mkdir(parents=True)
        for number in range(count):
            surface(1000 + number, spot=spot).save(parts / kind / f"{number}.png")
    train(
        Run(
            source=Source(str(parts), data_dir=folder, size=(SIDE, SIDE), roi=COUNTED),
            name="parts",
            recipe=LINEAR,
            rule=SCORING_RULES["local"],
            store=folder / "store",
            false_alarm_rate=0.05,
            guarantee="marginal",
            seed=1,
            device="cpu",
            threads=1,
            calibration="cross",
        )
    )
    shutil.rmtree(parts)
    store = ModelStore(folder / "store")
    for fit in OTHER_FITS:
        manifest, files = make_bundle(fit, spec=InputSpec(mode="L", height=SIDE, width=SIDE, fit=fit), cells=(16, 16))
        store.publish(manifest.model_copy(update={"region_of_interest": InterestRecord.of(ring())}), files)
    labels, images = folder / "labels.jsonl", folder / "images"
    with running_server(
        store.root, folder / "log", model="parts", feedback_path=labels, feedback_images=images, api_keys="key"
    ) as server:
        yield Station(server, store, labels, images)


def ring() -> Cells:
    """A region of interest that no reflection leaves as it is."""
    y, x = np.mgrid[:SIDE, :SIDE]
    inside: Cells = (x - 12) ** 2 + (y - 19) ** 2 <= 100
    return inside


def enter(page: Page) -> None:
    page.fill("#key-input", "key")
    page.click("#key-form button")
    expect(page.locator("#open-card")).to_be_enabled()


def wait_for_labels(page: Page, station: Station, count: int) -> list[dict[str, Any]]:
    """The lines of the label file, once there are so many."""
    deadline = time.monotonic() + 60
    while len(lines := station.labels.read_bytes().splitlines()) < count:
        assert time.monotonic() < deadline, f"{len(lines)} of {count} labels are stored"
        page.wait_for_timeout(50)
    return [orjson.loads(line) for line in lines]


def png_of(number: int, size: tuple[int, int] = (SIDE, SIDE), *, spot: bool = False) -> bytes:
    return encode(surface(number, size, spot=spot))
