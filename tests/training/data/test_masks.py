"""Masks of test images in folders."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.images.model_input import Fit, InputSpec
from training.data.datasets import Dataset, Source, load
from training.data.masks import read_mask


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def mask_of(size: tuple[int, int], *box: int, white: int = 255) -> Image.Image:
    image = Image.new("L", size)
    if box:
        image.paste(white, (box[0], box[1], box[2], box[3]))
    return image


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder in the layout of MVTec AD, with one mask missing and one unreadable."""
    root, noise = tmp_path / "parts", np.random.default_rng(0)

    def image() -> Image.Image:
        return Image.fromarray(noise.integers(0, 255, (32, 32), np.uint8))

    for number in range(4):
        save(root / "train" / "good" / f"{number:03}.png", image())
    save(root / "test" / "good" / "000.png", image())
    for number in range(3):
        save(root / "test" / "cut" / f"{number:03}.jpg", image())
    save(root / "ground_truth" / "cut" / "000_mask.png", mask_of((64, 64), 16, 0, 32, 64))
    (root / "ground_truth" / "cut" / "002_mask.png").write_bytes(b"no image")
    return root


def read(root: Path) -> Dataset:
    return load(Source(str(root), data_dir=root.parent / "data", size=(16, 16)))


def test_masks_belong_to_the_images_of_their_kind_and_name(parts: Path) -> None:
    data = read(parts)
    masks = dict(zip(data.test_files, data.test_masks, strict=True))
    cut = masks["test/cut/000.jpg"]
    assert cut is not None
    assert cut[:, 4:8].all()
    assert cut.sum() == 4 * 16
    good = masks["test/good/000.png"]
    assert good is not None
    assert not good.any()
    assert masks["test/cut/001.jpg"] is masks["test/cut/002.jpg"] is None
    assert any("1 masks of defects cannot be read" in remark for remark in data.remarks)
    assert not any("ground_truth" in remark and "not used" in remark for remark in data.remarks)


def test_masks_may_have_the_name_of_the_image(parts: Path) -> None:
    (parts / "ground_truth" / "cut" / "000_mask.png").rename(parts / "ground_truth" / "cut" / "000.png")
    masks = dict(zip((data := read(parts)).test_files, data.test_masks, strict=True))
    assert masks["test/cut/000.jpg"] is not None


def test_folder_without_masks_has_none(parts: Path) -> None:
    for mask in (parts / "ground_truth" / "cut").iterdir():
        mask.unlink()
    assert set(read(parts).test_masks) == {None}


@pytest.mark.parametrize("white", [255, 1])
@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_mask_of_any_size_is_brought_to_the_input_as_the_images_are(tmp_path: Path, fit: Fit, white: int) -> None:
    spec = InputSpec(mode="RGB", height=16, width=16, fit=fit)
    save(tmp_path / "mask.png", mask_of((64, 32), 28, 0, 36, 32, white=white))
    rows, columns = np.nonzero(read_mask(tmp_path / "mask.png", spec))
    assert (rows.min(), rows.max()) == (0, 15)  # with padding, it is reflected
    expected = {"stretch": (7, 8), "pad": (7, 8), "crop": (6, 9)}[fit]
    assert (columns.min(), columns.max()) == expected


def test_thin_scratch_is_not_lost(tmp_path: Path) -> None:
    save(tmp_path / "mask.png", mask_of((640, 640), 100, 0, 102, 640))
    mask = read_mask(tmp_path / "mask.png", InputSpec(mode="L", height=16, width=16))
    assert mask.any(axis=1).all()
