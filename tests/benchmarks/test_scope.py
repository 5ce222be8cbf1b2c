"""The benchmark of what is out of scope, on a model of handwritten digits."""

import numpy as np
import pytest

from benchmarks.scope.__main__ import main
from benchmarks.scope.foreign import SIDE, foreign_images, inverted, with_hand
from training.run import Published


def test_foreign_images_are_of_one_size_and_differ() -> None:
    images = foreign_images()
    assert {image.shape for image in images.values()} == {(SIDE, SIDE, 3)}
    assert len({image.tobytes() for image in images.values()}) == len(images)
    assert (foreign_images(1)["noise"] != images["noise"]).any()


def test_inverted_image_and_image_with_a_hand() -> None:
    pixels = np.full((30, 20, 3), 40, np.uint8)
    assert (inverted(pixels) == 215).all()
    covered = with_hand(pixels)
    assert (covered[0, 0] == 40).all()
    assert 0.2 < (covered != 40).any(2).mean() < 0.6


def test_command_prints_how_many_of_each_kind_are_out_of_scope(
    trained: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    store = trained.directory.parent.parent
    assert main(["digits", "--model", "digits-5", "--store", str(store)]) == 0
    rows = {
        cells[0].strip(): [cell.strip() for cell in cells[1:]]
        for line in capsys.readouterr().out.splitlines()
        if len(cells := line.strip("│").split("│")) > 1
    }
    assert rows["white"][:2] == rows["noise"][:2] == ["5", "5"]
    assert rows["normal, inverted"][0] == rows["normal, inverted"][1]
    number, out, _, least, greatest = rows["test, normal"]
    assert int(out) <= int(number) // 10
    assert float(least) < float(greatest)


def test_model_without_the_check_is_refused_in_one_line(trained: Published, capsys: pytest.CaptureFixture[str]) -> None:
    store = trained.directory.parent.parent
    assert main(["digits", "--model", "colour", "--store", str(store)]) == 1
    assert "published before models said what is out of scope" in capsys.readouterr().err
