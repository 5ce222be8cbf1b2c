import dataclasses
import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.inference.decisions.conformal import Guarantee, required_calibration_size
from training.data.splitting import split
from training.errors import TrainingError
from training.model.recipes import DEFAULT, TUTORIAL


def single_groups(count: int) -> list[str]:
    return [str(i) for i in range(count)]


def test_parts_are_disjoint_and_complete() -> None:
    parts = split(single_groups(5421), DEFAULT, false_alarm_rate=0.01, seed=1)
    assert sorted(parts.fit + parts.validation + parts.calibration) == list(range(5421))
    assert (len(parts.calibration), len(parts.validation)) == (1085, 271)


def test_tutorial_fits_on_80_percent() -> None:
    parts = split(single_groups(5421), TUTORIAL, false_alarm_rate=0.01, seed=1)
    assert len(parts.fit) == math.floor(0.8 * 5421)


def test_split_depends_on_the_seed() -> None:
    def calibration(seed: int) -> tuple[int, ...]:
        return split(single_groups(200), DEFAULT, false_alarm_rate=0.05, seed=seed).calibration

    assert calibration(1) == calibration(1)
    assert calibration(1) != calibration(2)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=20, max_size=60),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_groups_stay_together(sizes: list[int], seed: int) -> None:
    groups = [f"tile-{group}" for group, size in enumerate(sizes) for _ in range(size)]
    try:
        parts = split(groups, DEFAULT, false_alarm_rate=0.1, seed=seed)
    except TrainingError:
        return
    groups_of_parts = [{groups[index] for index in part} for part in (parts.fit, parts.validation, parts.calibration)]
    assert all(one.isdisjoint(other) for one, other in combinations(groups_of_parts, 2))
    assert len(groups_of_parts[2]) == max(required_calibration_size(0.1), math.ceil(0.2 * len(sizes)))


def test_calibration_part_is_large_enough_for_the_rate() -> None:
    parts = split(single_groups(150), DEFAULT, false_alarm_rate=0.01, seed=1)
    assert len(parts.calibration) == 99
    assert len(parts.fit) >= 150 / 4


@pytest.mark.parametrize(
    ("count", "rate", "needed", "total"), [(100, 0.01, 99, 132), (149, 0.001, 999, 1332), (3, 0.2, 4, 6)]
)
def test_too_few_images_is_an_error_with_the_needed_number(count: int, rate: float, needed: int, total: int) -> None:
    with pytest.raises(
        TrainingError,
        match=f"at least {needed} calibration images, so {total} normal images in total, but there are {count}",
    ):
        split(single_groups(count), DEFAULT, false_alarm_rate=rate, seed=1)
    split(single_groups(total), DEFAULT, false_alarm_rate=rate, seed=1)


@pytest.mark.parametrize(
    ("count", "rate", "guarantee", "needed", "total", "lowest"),
    [
        (20, 0.01, "marginal", 99, 132, "0.0625"),
        (50, 0.01, "strict", 299, 399, "0.07778"),
        (2, 0.3, "marginal", 3, 4, "0.5"),
    ],
)
def test_too_few_groups_is_an_error_with_the_needed_number_and_the_lowest_rate(
    count: int, rate: float, guarantee: Guarantee, needed: int, total: int, lowest: str
) -> None:
    groups = [f"part {image % count}" for image in range(10 * count)]
    with pytest.raises(TrainingError) as caught:
        split(groups, DEFAULT, false_alarm_rate=rate, guarantee=guarantee, seed=1)
    text = str(caught.value)
    assert f"at least {needed} groups of calibration images, so {total} groups of normal images in total" in text
    assert f"the {10 * count} images are in {count} groups. The lowest rate for so few is {lowest}. " in text
    assert text.endswith("or treat every image as its own object with --groups none")
    assert "\n" not in text
    split(groups, DEFAULT, false_alarm_rate=float(lowest), guarantee=guarantee, seed=1)
    split(single_groups(10 * count), DEFAULT, false_alarm_rate=0.3, seed=1)


def test_one_group_supports_no_rate() -> None:
    with pytest.raises(TrainingError, match=r"the 50 images are in 1 groups\. Add groups"):
        split(["all"] * 50, DEFAULT, false_alarm_rate=0.05, seed=1)


def test_groups_whose_images_are_needed_for_training_are_an_error() -> None:
    groups = ["large"] * 900 + [f"small {i}" for i in range(40)]
    fits = 0
    for seed in range(40):
        try:
            parts = split(groups, DEFAULT, false_alarm_rate=0.05, seed=seed)
        except TrainingError as error:
            assert "940 images in 41 groups cannot be split" in str(error)  # noqa: PT017
        else:
            fits += 1
            assert set(range(900)) <= set(parts.fit)
    assert 5 < fits < 30  # 22 of 41 groups are left for training


def test_large_and_small_groups_are_equally_often_in_the_calibration_part() -> None:
    """The guarantee for a further group needs calibration groups that are drawn without regard to their sizes."""
    groups = [f"{size}-{group}" for group in range(10) for size in (1, 9) for _ in range(size)]
    large = small = 0
    for seed in range(300):
        parts = split(groups, DEFAULT, false_alarm_rate=0.3, seed=seed)
        names = {groups[index] for index in parts.calibration}
        large, small = large + sum(name[0] == "9" for name in names), small + sum(name[0] == "1" for name in names)
    assert large + small == 300 * 4
    assert abs(large - small) < 4 * math.sqrt(300 * 4)


@pytest.mark.parametrize(
    "changes",
    [{"hidden": ()}, {"epochs": 0}, {"learning_rate": 0}, {"calibration_share": 0}, {"validation_share": 0.9}],
)
def test_invalid_recipes(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        dataclasses.replace(DEFAULT, **changes)  # type: ignore[arg-type]
