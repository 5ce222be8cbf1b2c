"""What is outside of the region of interest changes nothing that a model returns."""

import numpy as np
import pytest
import torch

from app.inference.bundles import torchscript
from tests.support import SPEC
from training.methods import method_of
from training.model.autoencoders import DenseAutoencoder
from training.model.interest import BlackOutside, RegionOfInterest, as_tensor, cells_inside
from training.model.method import Progress
from training.model.recipes import LINEAR
from training.model.scope import ScopedAutoencoder, fit_pixel_scope
from training.model.scoring_rules import SCORING_RULES, ScoredAutoencoder

INSIDE = np.zeros((8, 8), np.bool_)
INSIDE[2:6, :5] = True
REGION = as_tensor(INSIDE)


def images(seed: int = 0) -> torch.Tensor:
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def changed_outside(values: torch.Tensor) -> torch.Tensor:
    return torch.where(REGION > 0, values, images(1))


@pytest.mark.parametrize("rule", SCORING_RULES)
def test_no_scoring_rule_sees_what_is_outside(rule: str) -> None:
    torch.manual_seed(0)
    network = BlackOutside(DenseAutoencoder(SPEC.shape, (16,), 4, linear_code=True), REGION)
    scope, _ = fit_pixel_scope(images(2) * REGION, [[0, 1, 2], [3, 4, 5]], torch.ones(6))
    scored = ScopedAutoencoder(ScoredAutoencoder(network, SCORING_RULES[rule].module()), scope).eval()
    model = torchscript.load(torchscript.dump(RegionOfInterest(scored, REGION, (8, 8))))
    one, other = model(images()), model(changed_outside(images()))
    for name, mine, theirs in zip(("mse", "score", "map", "scope"), one[1:], other[1:], strict=True):
        torch.testing.assert_close(mine, theirs, msg=name)
    rebuilt, mse, _, error_map, _ = one
    assert (rebuilt == images()).logical_or(REGION > 0).all()  # outside, the image itself
    torch.testing.assert_close(mse, (images() - rebuilt).square().mean((1, 2, 3)))
    assert error_map[:, :, ~torch.from_numpy(INSIDE)].max() == 0
    assert error_map.max() > 0


def test_cells_count_if_any_part_of_them_is_inside() -> None:
    assert cells_inside(REGION, (4, 4))[0, 0].tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]


def test_models_of_folds_see_no_more_than_the_published_one() -> None:
    method = method_of(LINEAR, SCORING_RULES["mse"], SPEC, seed=0, device="cpu", inside=INSIDE)
    black = images() * REGION
    fitted, scores = method.cross_fit(black, [[0, 1, 2], [3, 4, 5]], Progress())
    assert scores.isfinite().all()
    rebuilt = fitted.network(black)[0]
    assert rebuilt[:, :, ~torch.from_numpy(INSIDE)].abs().max() == 0
