"""Fixtures: a store with a really trained model, and a server over it."""

import gc
from collections.abc import Iterator
from pathlib import Path

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
from training.pipeline import Published, Run, train

ALPHA = 0.05

torch.set_num_threads(1)

_LONGEST = {"test_readme.py", "test_under_load.py", "test_command_line.py", "page", "fuzz"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: none of the processes works on one file alone when the others are done."""
    items.sort(key=lambda item: _LONGEST.isdisjoint((item.path.name, item.path.parent.name)))


def pytest_collection_finish() -> None:
    """The collector need not look again and again at a million objects of libraries; the registry asks it to, often."""
    gc.collect()
    gc.freeze()


def digits_run(store: Path) -> Run:
    return Run(
        source=Source("digits", normal=(5,), data_dir=store / "data"),
        name="digits-5",
        recipe=DEFAULT,
        rule=SCORING_RULES["mse"],
        store=store,
        false_alarm_rate=ALPHA,
        guarantee="marginal",
        seed=1337,
        device="cpu",
        threads=1,
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """digits-5, trained for real, in a store that also has an untrained colour model."""
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
    """The bundled handwriting as PNG files, by digit, the plainest first.

    Processors round differently, and the model that is trained here differs with them: of an odd five it may say
    either, of a plain one it says normal everywhere.
    """
    bunch = load_digits()

    def files(digit: int) -> list[bytes]:
        images = bunch.images[bunch.target == digit]
        oddity = np.square(images - images.mean(axis=0)).sum(axis=(1, 2))
        pixels = np.rint(images[np.argsort(oddity, kind="stable")] * (255 / 16)).astype(np.uint8)
        return [encode(Image.fromarray(image)) for image in pixels]

    return {digit: files(digit) for digit in range(10)}
