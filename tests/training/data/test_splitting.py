import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.inference.decisions.conformal import required_calibration_size
from training.data.splitting import split
from training.errors import TrainingError
from training.model.recipes import DEFAULT, TUTORIAL


def alone(count: int) -> list[str]:
    return [str(i) for i in range(count)]


def test_parts_are_disjoint_and_together_everything() -> None:
    parts = split(alone(5421), DEFAULT, false_alarm_rate=0.01, seed=1)
    assert sorted(parts.fit + parts.validation + parts.calibration) == list(range(5421))
    assert (len(parts.calibration), len(parts.validation)) == (1085, 271)


def test_the_tutorial_keeps_its_eighty_twenty() -> None:
    parts = split(alone(5421), TUTORIAL, false_alarm_rate=0.01, seed=1)
    assert len(parts.fit) == math.floor(0.8 * 5421)


def test_the_seed_decides() -> None:
    def calibration(seed: int) -> tuple[int, ...]:
        return split(alone(200), DEFAULT, false_alarm_rate=0.05, seed=seed).calibration

    assert calibration(1) == calibration(1)
    assert calibration(1) != calibration(2)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=20, max_size=60),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_no_group_is_torn_apart(sizes: list[int], seed: int) -> None:
    groups = [f"tile-{group}" for group, size in enumerate(sizes) for _ in range(size)]
    try:
        parts = split(groups, DEFAULT, false_alarm_rate=0.1, seed=seed)
    except TrainingError:
        return
    owners = [{groups[index] for index in part} for part in (parts.fit, parts.validation, parts.calibration)]
    assert not owners[0] & owners[1] | owners[0] & owners[2] | owners[1] & owners[2]
    assert len(parts.calibration) >= max(required_calibration_size(0.1), 0.2 * len(groups))


def test_calibration_grows_as_far_as_the_rate_needs() -> None:
    parts = split(alone(150), DEFAULT, false_alarm_rate=0.01, seed=1)
    assert len(parts.calibration) == 99
    assert len(parts.fit) >= 150 / 4


@pytest.mark.parametrize(
    ("count", "rate", "needed", "in_all"), [(100, 0.01, 99, 132), (149, 0.001, 999, 1332), (3, 0.2, 4, 6)]
)
def test_too_few_images_say_how_many_it_takes(count: int, rate: float, needed: int, in_all: int) -> None:
    with pytest.raises(
        TrainingError,
        match=f"at least {needed} calibration images, so {in_all} normal images in all; there are {count}",
    ):
        split(alone(count), DEFAULT, false_alarm_rate=rate, seed=1)
    split(alone(in_all), DEFAULT, false_alarm_rate=rate, seed=1)


def test_too_few_groups_are_an_error() -> None:
    with pytest.raises(TrainingError, match="200 images in 2 groups"):
        split(["a"] * 190 + ["b"] * 10, DEFAULT, false_alarm_rate=0.05, seed=1)


@pytest.mark.parametrize(
    "changes",
    [{"hidden": ()}, {"epochs": 0}, {"learning_rate": 0}, {"calibration_share": 0}, {"validation_share": 0.9}],
)
def test_recipes_that_make_no_sense_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        dataclasses.replace(DEFAULT, **changes)  # type: ignore[arg-type]
