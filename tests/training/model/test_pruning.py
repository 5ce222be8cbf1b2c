import dataclasses

import pytest
import torch
from torch import nn

from training.model.autoencoders import DenseAutoencoder, build, parameter_count
from training.model.fitting import fit
from training.model.pruning import prune
from training.model.recipes import CONV, DEFAULT, LINEAR, Recipe

CPU = torch.device("cpu")


def network(*hidden: int) -> DenseAutoencoder:
    torch.manual_seed(0)
    return DenseAutoencoder((1, 6, 6), hidden, 4, linear_code=True)


def widths(network: nn.Module) -> list[tuple[int, int]]:
    return [(layer.in_features, layer.out_features) for layer in network.modules() if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("linear_code", [True, False])
def test_hidden_layers_become_narrower_but_not_the_code(linear_code: bool) -> None:
    wide = DenseAutoencoder((3, 4, 4), (20, 10), 4, linear_code=linear_code)
    prune(wide, torch.rand(50, 3, 4, 4), 0.5)
    assert widths(wide) == [(48, 10), (10, 5), (5, 4), (4, 5), (5, 10), (10, 48)]
    assert wide(torch.rand(7, 3, 4, 4)).shape == (7, 3, 4, 4)


def test_at_least_one_unit_is_kept() -> None:
    tiny = network(3)
    prune(tiny, torch.rand(50, 1, 6, 6), 0.01)
    assert widths(tiny) == [(36, 1), (1, 4), (4, 1), (1, 36)]


def test_constant_units_are_removed_without_changing_the_output() -> None:
    """Half of the units are always zero or constant."""
    whole, images = network(16), torch.rand(50, 1, 6, 6)
    with torch.no_grad():
        for half in (whole.encoder, whole.decoder):
            first = next(layer for layer in half if isinstance(layer, nn.Linear))
            first.bias[4:8] = -1000  # never active
            first.weight[8:12] = 0  # constant
            first.bias[8:12] = 0.7
        before = whole(images)
        prune(whole, images, 0.5)
        after = whole(images)
    assert widths(whole) == [(36, 8), (8, 4), (4, 8), (8, 36)]
    torch.testing.assert_close(after, before)


def test_unused_units_are_removed_first() -> None:
    whole, images = network(16), torch.rand(50, 1, 6, 6)
    with torch.no_grad():
        for half in (whole.encoder, whole.decoder):
            next_layer = [layer for layer in half if isinstance(layer, nn.Linear)][-1]
            next_layer.weight[:, ::2] = 0
        before = whole(images)
        prune(whole, images, 0.5)
        torch.testing.assert_close(whole(images), before)


@pytest.mark.parametrize(("epochs", "hidden"), [(1, 32), (2, 32), (3, 16), (8, 16)])
def test_fitting_prunes_from_three_epochs_on(epochs: int, hidden: int) -> None:
    recipe = dataclasses.replace(DEFAULT, hidden=(32,), code=4, epochs=epochs, batch_size=16)
    images, seen = torch.rand(40, 1, 6, 6), list[int]()
    trained = build(recipe, (1, 6, 6), 40)
    finished = fit(
        trained, images, images[:8], recipe, seed=1, device=CPU, on_epoch=lambda epoch: seen.append(epoch.number)
    )
    assert widths(trained) == [(36, hidden), (hidden, 4), (4, hidden), (hidden, 36)]
    assert seen == [epoch.number for epoch in finished] == list(range(1, epochs + 1))
    assert any(epoch.pruned for epoch in finished) == (hidden < 32)
    assert all(weight.requires_grad for weight in trained.parameters())


def test_default_recipe_halves_the_weights() -> None:
    wide = build(DEFAULT, (1, 28, 28), 100)
    before = parameter_count(wide)
    assert isinstance(wide, DenseAutoencoder)
    prune(wide, torch.rand(100, 1, 28, 28), DEFAULT.kept_share)
    assert 0.45 < parameter_count(wide) / before < 0.55


@pytest.mark.parametrize(("recipe", "share"), [(DEFAULT, 0), (DEFAULT, 1.5), (CONV, 0.5), (LINEAR, 0.5)])
def test_invalid_shares(recipe: Recipe, share: float) -> None:
    with pytest.raises(ValueError, match="kept_share"):
        dataclasses.replace(recipe, kept_share=share)
