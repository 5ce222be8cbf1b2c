"""Images in memory or mapped from a file, read as tensors."""

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from app.inference.images.model_input import DecodedImage, stack, unit_values
from training.data.images import Images

SMAPS = Path("/proc/self/smaps")
LEVELS = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 4), dtype=np.uint8)


@pytest.fixture(params=["memory", "file", "float32"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> Images:
    if request.param == "float32":
        return Images(unit_values(LEVELS))
    if request.param == "memory":
        return Images(LEVELS)
    np.save(tmp_path / "levels.npy", LEVELS)
    return Images(np.load(tmp_path / "levels.npy", mmap_mode="r"))


def test_images_read_like_a_tensor_of_the_decoded_images(images: Images) -> None:
    expected = stack([DecodedImage(levels) for levels in LEVELS])
    assert (len(images), images.shape) == (6, expected.shape)
    for wanted in (0, -1, [4, 1], [], slice(2), slice(1, None, 2)):
        assert torch.equal(images[wanted], expected[wanted])
    assert all(torch.equal(one, other) for one, other in zip(images, expected, strict=True))


def test_selected_images_are_those_at_the_positions(images: Images) -> None:
    chosen = images.select((5, 0, 3)).select([2, 0])
    assert chosen.pixels is images.pixels  # no copy
    assert torch.equal(chosen[:], images[[3, 5]])
    assert chosen.shape == (2, 3, 5, 4)
    assert len(images.select(())) == 0


def test_what_is_read_is_a_copy(images: Images) -> None:
    before = images[0]
    images[0].zero_()
    images[:].zero_()
    assert torch.equal(images[0], before)


@pytest.mark.skipif(not SMAPS.exists(), reason="the system does not say what is in memory")
def test_mapped_images_take_no_memory_after_they_are_read(tmp_path: Path) -> None:
    count, size = 8, 2**20
    np.save(tmp_path / "levels.npy", np.ones((count, 1, 1024, 1024), np.uint8))
    images = Images(np.load(tmp_path / "levels.npy", mmap_mode="r"))
    assert isinstance(images.pixels.base, mmap.mmap)
    assert images.pixels.sum() == count * size
    assert _resident(tmp_path / "levels.npy") >= count * size
    assert all(float(image.sum()) > 0 for image in images)
    assert _resident(tmp_path / "levels.npy") < size


def _resident(file: Path) -> int:
    """Bytes of a mapped file that are in the memory of this process."""
    lines = iter(SMAPS.read_text().splitlines())
    assert any(line.endswith(str(file)) for line in lines)
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Rss:"))
