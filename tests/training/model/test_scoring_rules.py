import numpy as np
import numpy.typing as npt
import pytest
import torch

from app.inference.bundles import torchscript
from training.model.autoencoders import DenseAutoencoder
from training.model.scoring_rules import (
    FLOOR,
    MSE_FLOOR,
    SCORING_RULES,
    Mse,
    ScoredAutoencoder,
    ScoringRule,
    squared_error,
)

Array = npt.NDArray[np.float64]
each_rule = pytest.mark.parametrize("rule", SCORING_RULES.values(), ids=SCORING_RULES)


def random_pair(count: int = 6, channels: int = 1, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(count, channels, side, side), torch.rand(count, channels, side, side)


def box(values: Array) -> Array:
    """3 × 3 mean over the existing pixels."""
    height, width = values.shape
    return np.array(
        [[values[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean() for j in range(width)] for i in range(height)]
    )


def variation(values: Array) -> float:
    """Total variation of (C, H, W)."""
    across = np.abs(values[:, :, 1:] - values[:, :, :-1]).mean()
    down = np.abs(values[:, 1:, :] - values[:, :-1, :]).mean()
    return max(float(across + down), FLOOR)


def reference(rule: str, x: Array, y: Array) -> float:
    """The formulas of docs/scoring.md for one image (C, H, W)."""
    energy = max((x**2).mean(), (y**2).mean(), FLOOR)
    smoothed = float(np.mean([box(a - b) ** 2 for a, b in zip(x, y, strict=True)]))
    if rule.startswith("local"):
        error, side = ((x - y) ** 2).mean(axis=0), max(2, min(x.shape[1:]) // 8)
        windows = np.lib.stride_tricks.sliding_window_view(error, (side, side))
        largest = float(windows.mean(axis=(2, 3)).max())
        return largest if rule == "local" else largest / max(float(error.mean()), MSE_FLOOR)
    formulas: dict[str, float] = {
        "mse": float(((x - y) ** 2).mean()),
        "smoothed": smoothed,
        "smoothed-relative": smoothed / energy,
        "smoothed-extent": smoothed / (max(x.mean(), y.mean(), FLOOR) * (variation(x) * variation(y)) ** 0.25),
    }
    return formulas[rule]


@pytest.mark.parametrize("channels", [1, 3])
@each_rule
def test_rule_equals_its_formula(rule: ScoringRule, channels: int) -> None:
    images, reconstructions = random_pair(channels=channels)
    got = torch.jit.script(rule.module())(images, reconstructions)
    pairs = zip(images.double().numpy(), reconstructions.double().numpy(), strict=True)
    assert got.shape == (6,)
    assert got.tolist() == pytest.approx([reference(rule.name, x, y) for x, y in pairs], rel=1e-4)


@each_rule
def test_perfect_reconstruction_and_black_images_have_score_zero(rule: ScoringRule) -> None:
    images, _ = random_pair()
    assert rule.module()(images, images).abs().max() == 0
    black = torch.zeros_like(images)
    assert rule.module()(black, black).abs().max() == 0


@each_rule
def test_mse_does_not_depend_on_the_rule(rule: ScoringRule) -> None:
    network = DenseAutoencoder((1, 16, 16), (16,), 4, linear_code=True).eval()
    model = torchscript.load(torchscript.dump(ScoredAutoencoder(network, rule.module())))
    images, _ = random_pair()
    reconstruction, mse, score, error_map = model(images)
    torch.testing.assert_close(error_map, ((images - reconstruction) ** 2).mean(dim=1, keepdim=True))
    torch.testing.assert_close(mse, ((images - reconstruction) ** 2).mean(dim=(1, 2, 3)))
    torch.testing.assert_close(score, rule.module()(images, reconstruction))


@each_rule
def test_score_does_not_depend_on_the_batch(rule: ScoringRule) -> None:
    images, reconstructions = random_pair(64)
    batched = rule.module()(images, reconstructions)
    single = torch.cat([rule.module()(images[i : i + 1], reconstructions[i : i + 1]) for i in range(64)])
    torch.testing.assert_close(batched, single, rtol=1e-5, atol=0)


def test_smoothed_relative_does_not_depend_on_brightness() -> None:
    """The MSE of a faint image is small, even if its reconstruction is completely wrong."""
    images, reconstructions = random_pair()
    faint_images, faint_reconstructions = images * 0.5, reconstructions * 0.5
    assert torch.allclose(Mse()(faint_images, faint_reconstructions), Mse()(images, reconstructions) / 4)
    relative = SCORING_RULES["smoothed-relative"].module()
    assert torch.allclose(relative(faint_images, faint_reconstructions), relative(images, reconstructions))


def test_smoothed_extent_is_lower_for_more_ink_and_longer_outlines() -> None:
    images = torch.zeros(3, 1, 16, 16)
    images[0, :, 8:, 8:] = 1  # a block
    images[1, :, ::2, 8:] = 1  # the same amount of ink in stripes: longer outlines
    images[2, :, 4:, 4:] = 1  # a larger block
    wrong = torch.zeros(1, 1, 16, 16)
    wrong[..., 1:3, 1:3] = 0.5
    smoothed, score = (SCORING_RULES[rule].module()(images, images + wrong) for rule in ("smoothed", "smoothed-extent"))
    assert smoothed.tolist() == pytest.approx([smoothed[0].item()] * 3)
    assert score[0] > score[1:].max()


def test_local_detects_a_small_defect_that_the_mean_hides() -> None:
    images = torch.zeros(2, 1, 64, 64)
    images[0, :, 10:18, 10:18] = 0.6  # a small defect
    images[1] = 0.1  # a faint error everywhere
    black = torch.zeros_like(images)
    mse, local = Mse()(images, black), SCORING_RULES["local"].module()(images, black)
    assert mse[0] < mse[1]
    assert local[0] > local[1]


def test_squared_error_does_not_broadcast() -> None:
    assert squared_error(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.0]])).tolist() == [[0.25, 0.0]]
    with pytest.raises(ValueError, match="reconstruction of shape"):
        squared_error(torch.rand(4, 1, 8, 8), torch.rand(4, 8, 8))
