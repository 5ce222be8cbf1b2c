"""Divisions of a pool, and the trial of a method whose scores are known."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from app.inference.images.model_input import InputSpec
from benchmarks.accuracy.pool import Pool
from benchmarks.accuracy.trials import Division, at_random, by_group, run_trial
from training.data.datasets import Dataset
from training.data.images import Images
from training.model.folds import Fold
from training.model.method import Fitted, ImageSet, Method, Progress
from training.model.recipes import LINEAR
from training.model.scope import fit_scope

OBJECTS, PHOTOS = 30, 4
NORMAL = OBJECTS * PHOTOS


@pytest.fixture
def pool() -> Pool:
    """30 objects with 4 images each, 20 normal test images and 10 anomalies; the level of an image is its position."""
    levels = (np.arange(NORMAL + 30) / 1000).astype(np.float32).reshape(-1, 1, 1, 1)
    return Pool(
        Dataset(
            source="levels",
            normal_label="normal",
            spec=InputSpec(mode="L", height=4, width=4),
            native_size=(4, 4),
            normal=Images(levels[:NORMAL]),
            groups=tuple(f"object {number // PHOTOS}" for number in range(NORMAL)),
            test=Images(levels[NORMAL:]),
            test_kinds=("normal",) * 20 + ("scratch",) * 10,
        )
    )


class LevelMethod(Method[torch.Tensor]):
    """The score is the level of the image, whatever the model was fitted on, which is remembered."""

    score: Literal["maximum"] = "maximum"

    def __init__(self) -> None:
        self.fitted_on: list[int] = []
        self.groups: Sequence[str] = ()

    def steps(self, images: int, folds: int) -> int:
        return 0

    def represent(
        self, images: ImageSet, positions: Sequence[int], progress: Progress, *, copies: int = 0
    ) -> torch.Tensor:
        return images[list(positions)].flatten()

    def fit(
        self, images: torch.Tensor, groups: Sequence[str], validation: torch.Tensor, progress: Progress
    ) -> Fitted[torch.Tensor]:
        self.fitted_on, self.groups = (images * 1000).round().int().tolist(), groups
        scope, _ = fit_scope(torch.stack([images, images], 1), torch.ones(1), [[0], [1]], images)
        return Fitted(nn.Identity(), lambda images: images, scope)

    def cross_fit(
        self, images: torch.Tensor, folds: Sequence[Fold], progress: Progress
    ) -> tuple[Fitted[torch.Tensor], torch.Tensor]:
        return self.fit(images, (), images[:0], progress), images

    def held_out_scores(
        self, images: torch.Tensor, twins: torch.Tensor, folds: Sequence[Fold]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError


def test_a_pool_numbers_normal_images_first(pool: Pool) -> None:
    assert len(pool) == NORMAL + 30
    assert (pool[[3, NORMAL + 2]].flatten() * 1000).round().tolist() == [3, NORMAL + 2]
    assert pool.test_normal == list(range(NORMAL, NORMAL + 20))
    assert pool.anomalies == list(range(NORMAL + 20, NORMAL + 30))
    assert pool.has_groups
    assert pool.anomaly_kinds == ["scratch"]


def test_a_split_by_group_keeps_objects_together_and_the_test_images_as_they_are(pool: Pool) -> None:
    division = by_group(pool, LINEAR, false_alarm_rate=0.05, seed=3)
    assert division.test == list(pool.test)
    parts = [{position // PHOTOS for position in part} for part in (division.fit, division.calibration)]
    assert not parts[0] & parts[1]
    assert len(parts[1]) == 19


def test_a_random_split_pools_all_normal_images(pool: Pool) -> None:
    division = at_random(pool, LINEAR, false_alarm_rate=0.05, seed=3)
    used = division.fit + division.validation + division.calibration
    assert sorted(used + division.test) == list(range(len(pool)))
    assert set(pool.anomalies) < set(division.test)
    assert len(division.test) == 30
    assert not set(division.test) <= set(pool.test)
    assert len({division.groups[position] for position in used}) == NORMAL


def test_a_trial_calibrates_by_group(pool: Pool) -> None:
    """76 images of 19 objects: the threshold is their highest level. Without groups, it would be the third-highest."""
    groups = dict(enumerate(pool.data.groups))
    division = Division(list(range(76, NORMAL)), [], list(range(76)), [74, 75, *pool.anomalies], groups)
    method = LevelMethod()
    images = method.represent(pool, range(len(pool)), Progress())
    figures, counting_images = run_trial(method, images, pool.kinds, division, seed=3).figures.values()
    assert method.fitted_on == division.fit
    assert method.groups == list(pool.data.groups[76:])
    assert figures.alarmed == {0.05: 0}
    assert figures.detected == {0.05: 1}
    assert figures.auroc == counting_images.auroc == 1
    assert counting_images.detected[0.05] == 1
    assert counting_images.alarmed[0.05] >= figures.alarmed[0.05]


def test_a_random_split_is_calibrated_without_groups(pool: Pool) -> None:
    method, division = LevelMethod(), at_random(pool, LINEAR, false_alarm_rate=0.05, seed=5)
    images = method.represent(pool, range(len(pool)), Progress())
    (figures,) = run_trial(method, images, pool.kinds, division, seed=5).figures.values()
    # 24 images are calibrated: the threshold is the highest level, which is below that of 3 normal test images.
    assert max(division.calibration) == 132
    assert figures.alarmed == {0.05: 3 / 20}
