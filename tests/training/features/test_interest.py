"""A region of interest with the recipe ``features``: what is outside changes neither map nor score."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from app.inference.bundles.bundle import Bundle
from app.inference.bundles.store import ModelStore
from training.__main__ import main

SIDE = 128
MIDDLE = SIDE // 2


def part(random: np.random.Generator) -> NDArray[np.float32]:
    """A textured surface on the left; what is on the right differs from image to image."""
    image = 0.5 + 0.04 * random.standard_normal((SIDE, SIDE))
    image[:, MIDDLE:] = random.random() * (np.indices((SIDE, MIDDLE)).sum(axis=0) // 8 % 2)
    return image.clip(0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder, random = tmp_path_factory.mktemp("parts"), np.random.default_rng(0)
    (folder / "normal").mkdir()
    for index in range(30):
        Image.fromarray((part(random) * 255).astype(np.uint8)).save(folder / "normal" / f"{index}.png")
    Image.fromarray(np.repeat([[255, 0]], SIDE, axis=0).astype(np.uint8)).save(folder / "mask.png")
    words = ["--data", str(folder), "--recipe", "features", "--size", str(SIDE), "--false-alarm-rate", "0.1"]
    words += ["--mask", str(folder / "mask.png"), "--name", "parts", "--threads", "1"]
    assert main([*words, "--store", str(folder / "store"), "--data-dir", str(folder / "data")]) == 0
    store = ModelStore(folder / "store")
    return store.load("parts", store.current("parts"))


def test_what_is_outside_changes_nothing(bundle: Bundle) -> None:
    random = np.random.default_rng(1)
    images = torch.from_numpy(np.stack([part(random) for _ in range(3)]))[:, None]
    changed = images.clone()
    changed[..., MIDDLE:] = torch.rand(3, 1, SIDE, MIDDLE)
    one, other = bundle.score_batch(images), bundle.score_batch(changed)
    assert other.score == pytest.approx(one.score, rel=1e-4)
    assert other.mse == pytest.approx(one.mse, rel=1e-4)
    assert one.error_map is not None
    cells = one.error_map.shape[3]
    assert one.error_map[..., cells // 2 :].max() == 0
    assert one.error_map.flatten(1).amax(1).tolist() == one.score
    assert (other.reconstruction[..., MIDDLE:] == changed[..., MIDDLE:]).all()


def test_normal_images_stay_normal_and_defects_inside_are_found(bundle: Bundle) -> None:
    random = np.random.default_rng(2)
    images = torch.from_numpy(np.stack([part(random) for _ in range(12)]))[:, None]
    threshold = bundle.manifest.threshold
    assert sum(score > threshold for score in bundle.score_batch(images).score) <= 5
    images[..., 40:72, 20:36] = 0
    assert min(bundle.score_batch(images).score) > threshold
