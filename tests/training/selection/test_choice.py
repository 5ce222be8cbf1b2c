"""The choice of a recipe: what is tried, what wins, and what must not take part."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.inference.images.model_input import InputSpec
from tests.conftest import digits_run
from training.data.datasets import Source
from training.data.splitting import CalibrationPlan
from training.methods import method_of
from training.model.folds import Fold
from training.model.method import Fitted, ImageSet, Method, Progress
from training.model.recipes import CONV, DEFAULT, FEATURES, LINEAR
from training.model.scoring_rules import DEFAULT_SCORING_RULE, FEATURE_RULE, SCORING_RULES
from training.preparation import prepare
from training.run import Observer, Run
from training.selection.choice import Candidate, Trial, at_size, candidates, is_small, sample, try_all

RULE = SCORING_RULES[DEFAULT_SCORING_RULE]


def names(tried: Sequence[Candidate]) -> list[tuple[str, tuple[int, int]]]:
    return [(candidate.recipe.name, candidate.size) for candidate in tried]


class TestCandidates:
    def test_large_images_have_a_pretrained_network_and_a_small_input_of_pixels(self) -> None:
        assert names(candidates(FEATURES, (600, 800), None)) == [("features", (320, 320)), ("linear", (64, 64))]
        assert [each.rule for each in candidates(FEATURES, (600, 800), None)] == [FEATURE_RULE, RULE]

    @pytest.mark.parametrize("native", [(8, 8), (64, 20), (64, 64)])
    def test_small_images_have_no_pretrained_network(self, native: tuple[int, int]) -> None:
        assert is_small(native)
        assert names(candidates(FEATURES, native, None)) == [("default", native), ("linear", native)]
        assert names(candidates(FEATURES, native, (16, 12))) == [("default", (16, 12)), ("linear", (16, 12))]

    def test_a_size_of_the_user_is_that_of_all_candidates(self) -> None:
        assert names(candidates(FEATURES, (65, 20), (128, 96))) == [("features", (128, 96)), ("linear", (128, 96))]
        assert names(candidates(FEATURES, (65, 20), (129, 96))) == [("features", (129, 96))]  # too large for pixels

    def test_the_backbone_of_the_user_is_tried(self) -> None:
        other = dataclasses.replace(FEATURES, backbone="efficientnet_lite2")
        assert candidates(other, (600, 800), None)[0].recipe.backbone == "efficientnet_lite2"


def test_sample_is_seeded_ascending_and_limited() -> None:
    assert sample(40, (600, 800), 1) == list(range(40))
    found = sample(5000, (600, 800), 1)
    assert len(found) == len(set(found)) == 150
    assert found == sorted(found) == sample(5000, (600, 800), 1) != sample(5000, (600, 800), 2)
    assert len(sample(5000, (28, 28), 1)) == 2000


def test_at_size_is_antialiased() -> None:
    images = (torch.arange(64) % 2).float().expand(2, 1, 64, 64)
    torch.testing.assert_close(at_size(images, (8, 16)), torch.full((2, 1, 8, 16), 0.5), atol=0.1, rtol=0)
    assert at_size(images, (64, 64)) is images


class Scored(Method[torch.Tensor]):
    """Scores images by the share of their pixels that are changed, times a strength, with noise."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def steps(self, images: int, folds: int) -> int:
        raise NotImplementedError

    def represent(
        self, images: ImageSet, positions: Sequence[int], progress: Progress, *, copies: int = 0
    ) -> torch.Tensor:
        return images[list(positions)]

    def fit(self, *_: Any) -> Fitted[torch.Tensor]:
        raise NotImplementedError

    def cross_fit(self, *_: Any) -> tuple[Fitted[torch.Tensor], torch.Tensor]:
        raise NotImplementedError

    def held_out_scores(
        self,
        images: torch.Tensor,
        twins: torch.Tensor,
        folds: Sequence[Fold],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert sorted(at for fold in folds for at in fold) == list(range(len(images)))
        noise = torch.randn(len(images), generator=torch.Generator().manual_seed(0))
        return noise, noise.flip(0) + self.strength * (twins - images).abs().flatten(1).sum(1)


def tried_with(strengths: dict[str, float]) -> list[Trial]:
    recipes = {"default": DEFAULT, "linear": LINEAR, "conv": CONV}
    tried = [Candidate(recipes[name], RULE, (20, 20)) for name in strengths]
    images = torch.rand(30, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    groups = [str(image) for image in range(30)]
    return try_all(
        images, groups, tried, lambda candidate: Scored(strengths[candidate.recipe.name]), local=True, seed=1
    )


def test_the_best_comes_first() -> None:
    trials = tried_with({"default": 0.1, "conv": 0, "linear": 100})
    assert [trial.candidate.recipe.name for trial in trials] == ["linear", "default", "conv"]
    assert trials[0].auroc > 0.95
    assert trials[2].auroc == pytest.approx(0.5, abs=0.01)


def test_of_equals_the_earlier_one_comes_first() -> None:
    for order in (["linear", "conv", "default"], ["default", "linear", "conv"]):
        trials = tried_with(dict.fromkeys(order, 1.0))
        assert [trial.candidate.recipe.name for trial in trials] == order


def test_features_beat_pixels_on_textures() -> None:
    """Stripes of any direction and phase differ in every pixel; a pretrained network sees that they are stripes."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    phase, angle = (6.28 * torch.rand(24, 1, 1, 1, generator=generator) for _ in range(2))
    stripes = 0.5 + 0.3 * torch.sin(0.8 * (x * angle.cos() + y * angle.sin()) + phase)
    images = (stripes + 0.05 * torch.randn(24, 1, 96, 96, generator=generator)).clamp(0, 1)
    tried = candidates(dataclasses.replace(FEATURES, folder_size=(96, 96)), (96, 96), None)

    def method(candidate: Candidate) -> Method[Any]:
        spec = InputSpec(mode="L", height=candidate.size[0], width=candidate.size[1])
        return method_of(candidate.recipe, candidate.rule, spec, seed=1, device="cpu")

    trials = try_all(images, [str(image) for image in range(24)], tried, method, local=True, seed=1)
    assert [trial.candidate.recipe.name for trial in trials] == ["features", "linear"]
    assert trials[0].auroc > trials[1].auroc + 0.05


def small_run(folder: Path, **changes: Any) -> Run:
    source = Source(str(folder), data_dir=folder.parent / "data")
    return dataclasses.replace(
        digits_run(folder.parent / "store"), source=source, recipe=FEATURES, choose=True, calibration="cross", **changes
    )


def write(folder: Path, count: int, side: int = 12, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 255, (3, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BILINEAR).save(folder / f"{number:02}.png")


class Followed(Observer):
    def __init__(self) -> None:
        self.trials: Sequence[Trial] = ()

    def chosen(self, trials: Sequence[Trial]) -> None:
        self.trials = trials


def test_no_test_image_takes_part(tmp_path: Path) -> None:
    seen = []
    for name in ("without", "garbage", "anomalies"):
        folder = tmp_path / name / "parts"
        write(folder / "normal", 30)
        if name == "garbage":
            (folder / "test" / "anomaly" / "x").mkdir(parents=True)
            (folder / "test" / "anomaly" / "x" / "1.png").write_bytes(b"no image")
        if name == "anomalies":
            write(folder / "test" / "anomaly" / "x", 9, seed=7)
            write(folder / "test" / "normal", 9, side=99, seed=8)
        run, prepared, trials = prepare(small_run(folder), Observer())
        assert len(prepared.data.test) == {"without": 0, "garbage": 0, "anomalies": 18}[name]
        assert run.recipe == trials[0].candidate.recipe
        seen.append(trials)
    assert seen[0] == seen[1] == seen[2]


def test_small_images_are_read_at_their_size_and_the_choice_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "parts" / "normal", 30)
    followed = Followed()
    run, prepared, trials = prepare(small_run(tmp_path / "parts"), followed)
    assert followed.trials is trials
    assert {name for name, _ in names([trial.candidate for trial in trials])} == {"default", "linear"}
    assert prepared.data.spec.shape == (1, 12, 12)
    assert run.source.size == (12, 12)
    assert not run.choose
    assert run.rule == RULE


@pytest.mark.parametrize("plan", ["split", "cross"])
def test_calibration_images_do_not_take_part(tmp_path: Path, plan: CalibrationPlan) -> None:
    """Those that are held back. With folds, all images are calibration images, and all take part."""
    write(tmp_path / "parts" / "normal", 60)
    run = dataclasses.replace(small_run(tmp_path / "parts"), calibration=plan)
    _, prepared, before = prepare(run, Observer())
    changed = prepared.parts.calibrating[0]
    file = tmp_path / "parts" / prepared.data.normal_files[changed]
    Image.effect_noise((12, 12), 90).save(file)
    _, _, after = prepare(run, Observer())
    assert (before == after) is (plan == "split")


def test_a_single_candidate_is_used_without_a_trial(tmp_path: Path) -> None:
    """Large inputs permit only the pretrained network; trying it would take memory, and decide nothing."""
    (tmp_path / "parts" / "normal").mkdir(parents=True)
    for number in range(30):
        Image.effect_noise((70, 70), 90).save(tmp_path / "parts" / "normal" / f"{number}.png")
    run = small_run(tmp_path / "parts")
    run = dataclasses.replace(run, recipe=FEATURES, source=dataclasses.replace(run.source, size=(160, 160)))
    chosen, _, trials = prepare(run, Observer())
    assert (chosen.recipe, chosen.choose, trials) == (FEATURES, False, ())
