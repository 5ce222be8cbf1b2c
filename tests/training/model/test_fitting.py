import dataclasses

import pytest
import torch
from torch import nn

from training.model.autoencoders import LinearAutoencoder, build, parameter_count
from training.model.fitting import Epoch, fit, pick_device
from training.model.recipes import CONV, DEFAULT, LINEAR, RECIPES, TUTORIAL, Recipe
from training.model.scoring_rules import Mse, ScoredAutoencoder

CPU = torch.device("cpu")
SHORT = dataclasses.replace(DEFAULT, hidden=(32,), code=8, epochs=3, batch_size=16, noise=0.2, learning_rate=1e-2)

SHORT_CONV = dataclasses.replace(CONV, hidden=(8, 8), code=8, epochs=3, batch_size=16, noise=0.2, learning_rate=1e-2)


def blobs(count: int = 64) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.sigmoid(nn.functional.interpolate(torch.randn(count, 1, 2, 2) * 3, (8, 8), mode="bilinear"))


def train(recipe: Recipe, *, seed: int = 1, images: torch.Tensor | None = None) -> tuple[nn.Module, list[Epoch]]:
    images = blobs() if images is None else images
    torch.manual_seed(seed)
    network = build(recipe, (1, 8, 8), 48)
    epochs = fit(network, images[:48], images[48:], recipe, seed=seed, device=CPU, on_epoch=lambda _: None)
    return network, epochs


def test_tutorial_network_has_the_original_parameters() -> None:
    network = build(TUTORIAL, (1, 28, 28), 100)
    assert parameter_count(network) == 1_132_944
    assert [type(layer).__name__ for layer in network.get_submodule("decoder").children()] == ["Linear", "ReLU"] * 2 + [
        "Linear",
        "Sigmoid",
    ]


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 16, 24), (3, 33, 50), (1, 4, 4)])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_reconstruction_has_the_shape_of_the_images(recipe: Recipe, shape: tuple[int, int, int]) -> None:
    network = build(recipe, shape, 100).eval()
    for count in (1, 2, 7):
        images = torch.rand(count, *shape)
        assert network(images).shape == images.shape


@pytest.mark.parametrize(
    "recipe",
    [SHORT, SHORT_CONV, dataclasses.replace(TUTORIAL, hidden=(32,), code=8, batch_size=16, learning_rate=1e-2)],
)
def test_fitting_lowers_both_losses(recipe: Recipe) -> None:
    recipe = dataclasses.replace(recipe, epochs=30)
    _, epochs = train(recipe)
    assert [epoch.number for epoch in epochs] == list(range(1, 31))
    assert epochs[-1].train_loss < epochs[0].train_loss / 2
    assert epochs[0].validation_loss is not None
    assert epochs[-1].validation_loss is not None
    assert epochs[-1].validation_loss < epochs[0].validation_loss / 2


def test_equal_seeds_give_equal_weights() -> None:
    first, second, other = train(SHORT)[0], train(SHORT)[0], train(SHORT, seed=2)[0]
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert any(not torch.equal(w, other.state_dict()[n]) for n, w in first.state_dict().items())


def test_weights_do_not_depend_on_validation_images() -> None:
    images = blobs()
    other_validation = torch.cat([images[:48], torch.rand(16, 1, 8, 8)])
    first, second = train(SHORT, images=images)[0], train(SHORT, images=other_validation)[0]
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])


def test_linear_autoencoder_has_the_least_error() -> None:
    images = blobs()
    network, epochs = train(dataclasses.replace(LINEAR, code=5), images=images)
    flat = images[:48].flatten(1)
    singular = torch.linalg.svdvals(flat - flat.mean(0))
    least = (singular[5:] ** 2).sum().item() / flat.numel()
    assert 0.7 * least < epochs[0].train_loss <= 1.0001 * least  # clamping to [0, 1] can only reduce it
    assert network(images).shape == images.shape


def test_width_of_a_linear_code_is_limited_by_the_number_of_images() -> None:
    network, _ = train(LINEAR)
    assert isinstance(network, LinearAutoencoder)
    assert network.encoder.out_features == 47


class _WithoutChannel(nn.Module):
    """The mistake of the tutorial: (B, 1, H, W) → (B, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.layer(images.flatten(1))).reshape(-1, 8, 8)


def test_fitting_rejects_a_reconstruction_of_the_wrong_shape() -> None:
    images = blobs()
    with pytest.raises(ValueError, match=r"reconstruction of shape .*16, 8, 8.* for images of shape .*16, 1, 8, 8"):
        fit(_WithoutChannel(), images, images[:0], SHORT, seed=1, device=CPU, on_epoch=lambda _: None)
    # torch only warns, and would learn the mean image.
    with pytest.warns(UserWarning, match="target size"):
        nn.functional.mse_loss(_WithoutChannel()(images), images)


def test_published_model_rejects_a_reconstruction_of_the_wrong_shape() -> None:
    scripted = torch.jit.script(ScoredAutoencoder(_WithoutChannel(), Mse()))
    with pytest.raises(torch.jit.Error, match="reconstruction of shape"):
        scripted(blobs(2))


def test_pick_device() -> None:
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}
