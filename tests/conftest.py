"""Fixtures: a store with a trained model, and a server for it."""

import gc
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from app.inference.bundles.store import ModelStore
from tests.support import Server, encode, make_bundle, running_server
from training.data.datasets import Source
from training.model.recipes import DEFAULT
from training.model.scoring_rules import SCORING_RULES
from training.pipeline import train
from training.run import Published, Run

FALSE_ALARM_RATE = 0.05

torch.set_num_threads(1)

# A deadline in wall-clock time fails on a busy machine.
hypothesis.settings.register_profile("anomaly", deadline=None)
hypothesis.settings.load_profile("anomaly")

_SLOWEST = {
    *("test_readme.py", "test_under_load.py", "test_train.py", "test_data_as_it_comes.py", "test_pipeline.py"),
    *("test_ray.py", "page", "fuzz"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts the slowest files first, so that all processes finish at about the same time."""
    items.sort(key=lambda item: _SLOWEST.isdisjoint((item.path.name, item.path.parent.name)))


def pytest_collection_finish() -> None:
    """Excludes the libraries' million objects from garbage collection, which the registry triggers often."""
    gc.collect()
    gc.freeze()


def digits_run(store: Path) -> Run:
    return Run(
        source=Source("digits", normal=(5,), data_dir=store / "data"),
        name="digits-5",
        recipe=DEFAULT,
        rule=SCORING_RULES["mse"],
        store=store,
        false_alarm_rate=FALSE_ALARM_RATE,
        guarantee="marginal",
        seed=1337,
        device="cpu",
        threads=1,
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The trained model digits-5, in a store that also has an untrained colour model."""
    store = tmp_path_factory.mktemp("store")
    published = train(digits_run(store))
    manifest, files = make_bundle("colour", spec=published.manifest.input.model_copy(update={"mode": "RGB"}))
    ModelStore(store).publish(manifest, files)
    return published


@pytest.fixture(scope="session")
def store(trained: Published) -> Path:
    return trained.directory.parent.parent


@pytest.fixture(scope="session")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with running_server(store, log, model="digits-5", max_body_bytes=2**20, max_pixels=10**6, max_files=8) as running:
        yield running


@pytest.fixture(scope="session")
def digit_files() -> dict[int, list[bytes]]:
    """scikit-learn's handwritten digits as PNG files, by digit, the most typical first.

    The model trained here depends on the rounding of the processor. The verdict for an unusual five can differ between
    machines, that for a typical five does not.
    """
    bunch = load_digits()

    def files(digit: int) -> list[bytes]:
        images = bunch.images[bunch.target == digit]
        distance = np.square(images - images.mean(axis=0)).sum(axis=(1, 2))
        pixels = np.rint(images[np.argsort(distance, kind="stable")] * (255 / 16)).astype(np.uint8)
        return [encode(Image.fromarray(image)) for image in pixels]

    return {digit: files(digit) for digit in range(10)}
