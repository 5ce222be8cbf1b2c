"""Folds of whole groups."""

import pytest

from training.errors import TrainingError
from training.model.folds import folds_of, others

SIZES = (9, 7, 4, 4, 3, 3, 2, 2, 1, 1, 1, 1, 1)
GROUPS = [f"object {number}" for number, size in enumerate(SIZES) for _ in range(size)]


def test_folds_have_every_position_once_and_whole_groups() -> None:
    folds = folds_of(GROUPS, 5, seed=3)
    assert sorted(position for fold in folds for position in fold) == list(range(len(GROUPS)))
    assert all(fold == sorted(fold) for fold in folds)
    names = [{GROUPS[position] for position in fold} for fold in folds]
    assert sum(map(len, names)) == len(SIZES)


@pytest.mark.parametrize("seed", range(20))
def test_folds_are_of_similar_size(seed: int) -> None:
    sizes = [len(fold) for fold in folds_of(GROUPS, 4, seed)]
    assert max(sizes) - min(sizes) <= 1  # groups of one image fill the gaps
    sizes = [len(fold) for fold in folds_of([str(image) for image in range(23)], 5, seed)]
    assert sorted(sizes) == [4, 4, 5, 5, 5]


def test_folds_depend_on_the_seed() -> None:
    single = [str(image) for image in range(40)]
    assert folds_of(single, 5, seed=1) == folds_of(single, 5, seed=1)
    assert folds_of(single, 5, seed=1) != folds_of(single, 5, seed=2)


def test_there_are_no_more_folds_than_groups() -> None:
    assert sorted(folds_of(["a", "b", "a", "b", "b"], 5, seed=1)) == [[0, 2], [1, 3, 4]]


def test_images_of_one_group_are_divided() -> None:
    """As where all images that are left to fit on show one object."""
    assert sorted(map(len, folds_of(["a"] * 7, 2, seed=1))) == [3, 4]


def test_one_image_cannot_be_divided() -> None:
    with pytest.raises(TrainingError, match="two are needed"):
        folds_of(["a"], 2, seed=1)


def test_others_are_the_positions_outside_a_fold() -> None:
    assert others([1, 3], 5) == [0, 2, 4]
    assert others([], 3) == [0, 1, 2]
    assert others([0, 1, 2], 3) == []
