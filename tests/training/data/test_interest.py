"""The region of interest as a mask at the model's input size."""

import argparse
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.inference.images.model_input import Fit, InputSpec
from training.cli import argument_types
from training.data.datasets import Source, load
from training.data.interest import Rectangle, read_interest
from training.errors import TrainingError

SPEC = InputSpec(mode="L", height=20, width=20)


def photographs(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(len(sizes))]
    for path, (width, height) in zip(paths, sizes, strict=True):
        Image.fromarray(np.random.default_rng(0).integers(1, 255, (height, width), np.uint8)).save(path)
    return paths


def bounds(inside: NDArray[np.bool_] | None) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a region, which is a rectangle."""
    assert inside is not None
    rows, columns = np.nonzero(inside)
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    assert inside.sum() == (box[2] - box[0]) * (box[3] - box[1])
    return box


def test_rectangle_is_in_pixels_of_the_images(tmp_path: Path) -> None:
    files = photographs(tmp_path, (200, 100), (200, 100))
    rectangle = argument_types.rectangle("50,10,100,80")
    assert bounds(read_interest(None, rectangle, files, SPEC)) == (5, 2, 15, 18)


def test_rectangle_in_percent_fits_images_of_several_sizes(tmp_path: Path) -> None:
    files = photographs(tmp_path, (200, 100), (90, 300))
    rectangle = argument_types.rectangle("25%, 10%, 50%, 80%")
    assert bounds(read_interest(None, rectangle, files, SPEC)) == (5, 2, 15, 18)
    with pytest.raises(TrainingError, match=r"images of one size, .* give it in percent"):
        read_interest(None, Rectangle(0, 0, 50, 50, in_percent=False), files, SPEC)


def test_rectangle_counts_from_the_corner_that_a_viewer_shows(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("L", (200, 100), 9).save(tmp_path / "lying.jpg", exif=exif)  # shown as 100 × 200
    rectangle = Rectangle(0, 150, 100, 50, in_percent=False)
    assert bounds(read_interest(None, rectangle, [tmp_path / "lying.jpg"], SPEC)) == (0, 15, 20, 20)


@pytest.mark.parametrize(
    ("fit", "expected"), [("stretch", (5, 0, 15, 20)), ("pad", (5, 0, 15, 20)), ("crop", (0, 0, 20, 20))]
)
def test_mask_of_any_size_is_brought_to_the_input_as_the_images_are(
    tmp_path: Path, fit: Fit, expected: tuple[int, int, int, int]
) -> None:
    mask = Image.new("L", (400, 200))
    mask.paste(255, (100, 0, 300, 200))
    mask.save(tmp_path / "mask.png")
    spec = SPEC.model_copy(update={"fit": fit})
    if expected == (0, 0, 20, 20):
        with pytest.raises(TrainingError, match="the whole image"):
            read_interest(tmp_path / "mask.png", None, [], spec)
    else:
        assert bounds(read_interest(tmp_path / "mask.png", None, [], spec)) == expected


def test_empty_unreadable_and_outlying_regions_are_refused(tmp_path: Path) -> None:
    files = photographs(tmp_path / "normal", (200, 100))
    Image.new("L", (9, 9)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("no image")
    for mask, text in (("black.png", "is empty"), ("text.png", "cannot be read"), ("none.png", "No such file")):
        with pytest.raises(TrainingError, match=text):
            read_interest(tmp_path / mask, None, files, SPEC)
    with pytest.raises(TrainingError, match=r"150,0 to 250,50, outside of images of 200×100"):
        read_interest(None, Rectangle(150, 0, 100, 50, in_percent=False), files, SPEC)
    assert read_interest(None, None, files, SPEC) is None


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,x", "10%,2,3,4", "-1,2,3,4", ""])
def test_other_texts_are_no_rectangle(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="X,Y,W,H"):
        argument_types.rectangle(text)


def test_images_of_a_data_set_are_black_outside(tmp_path: Path) -> None:
    photographs(tmp_path / "parts" / "normal", *[(40, 40)] * 3)
    source = Source(
        str(tmp_path / "parts"), data_dir=tmp_path, size=(20, 20), roi=Rectangle(0, 0, 50, 100, in_percent=True)
    )
    data = load(source)
    for images in (data.normal, data.normal.select([2, 0])):
        assert images[:][..., :10].min() > 0
        assert images[:][..., 10:].max() == 0
    with pytest.raises(TrainingError, match="--mask and --roi are for folders"):
        load(Source("digits", normal=(5,), mask=tmp_path / "mask.png"))
