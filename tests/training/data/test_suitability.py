"""Whether normal images are enough to learn from."""

import numpy as np
import pytest

from training.data.images import Images
from training.data.suitability import MIN_FIT, accepted, doubts
from training.errors import TrainingError


def noise(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, 1, 8, 8), dtype=np.uint8)


def of(pixels: np.ndarray, fit: int | None = None) -> list[str]:
    return doubts(Images(pixels), range(len(pixels) if fit is None else fit))


def test_different_images_are_accepted() -> None:
    assert of(noise(60)) == []
    assert of(noise(MIN_FIT)) == []


def test_fewer_than_twenty_to_fit_are_too_few() -> None:
    assert of(noise(12)) == ["only 12 different normal images to fit a model on, which needs at least 20"]
    assert of(noise(60), fit=19) == ["only 19 different normal images to fit a model on, which needs at least 20"]
    assert doubts(Images(noise(12)), fit=None) == []  # enough for a threshold


def test_copies_do_not_count() -> None:
    assert of(np.repeat(noise(1), 60, axis=0)) == [
        "the 60 normal images are copies of 1: so few say little about others"
    ]
    assert doubts(Images(np.repeat(noise(20), 3, axis=0)), fit=None) == [
        "the 60 normal images are copies of 20: so few say little about others"
    ]
    assert of(np.repeat(noise(30), 2, axis=0)) == []
    assert of(np.repeat(noise(19), 2, axis=0)) == [
        "only 19 different normal images to fit a model on, which needs at least 20"
    ]


def test_images_of_one_colour_show_nothing() -> None:
    levels = np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1)
    plain = np.broadcast_to(levels, (60, 1, 8, 8)).copy()
    assert of(plain) == ["60 of 60 normal images have no contrast: they are of one colour"]
    plain[0, 0, 0, 0] = 200
    plain[:, 0, 1, 1] += 2  # noise of the last bits
    assert of(plain) == ["59 of 60 normal images have no contrast: they are of one colour"]
    plain[:30] = noise(30)
    assert of(plain) == []
    colours = np.broadcast_to(np.arange(180, dtype=np.uint8).reshape(60, 3, 1, 1), (60, 3, 8, 8))
    assert of(colours)[0].startswith("60 of 60 normal images have no contrast")


def test_doubts_stop_a_run_unless_the_user_insists() -> None:
    assert accepted([], force=False) == ()
    assert accepted(["a", "b"], force=True) == ("a", "b")
    with pytest.raises(TrainingError, match=r"^a; b\. Nothing was published; --force publishes"):
        accepted(["a", "b"], force=False)
