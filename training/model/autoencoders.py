"""Autoencoders: networks that compress and reconstruct images.

All take (N, C, H, W) float32 in [0, 1] and return a reconstruction of the same shape, in [0, 1].
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from sklearn.decomposition import PCA
from torch import nn

from training.model.recipes import Recipe


class DenseAutoencoder(nn.Module):
    """Fully connected layers, mirrored in the decoder; for small images.

    Args:
        shape: (C, H, W) of one image.
        hidden: widths of the hidden layers from the input on, e.g. (512, 256).
        code: width of the bottleneck.
        linear_code: no ReLU after the code layer.
    """

    def __init__(self, shape: tuple[int, int, int], hidden: Sequence[int], code: int, *, linear_code: bool) -> None:
        super().__init__()
        widths = (math.prod(shape), *hidden, code)
        encoder = _layers(widths)
        self.encoder = nn.Sequential(nn.Flatten(), *(encoder[:-1] if linear_code else encoder))
        self.decoder = nn.Sequential(*_layers(widths[::-1])[:-1], nn.Sigmoid())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → reconstruction (N, C, H, W)."""
        reconstruction: torch.Tensor = self.decoder(self.encoder(images))
        return reconstruction.reshape(images.shape)


def _layers(widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return layers


class ConvAutoencoder(nn.Module):
    """Convolutions that halve the image, a dense bottleneck, and the reverse; for larger images and colour images.

    Args:
        shape: (C, H, W) of one image, of any size.
        channels: number of channels after each halving, e.g. (32, 64, 64).
        code: width of the bottleneck.
    """

    def __init__(self, shape: tuple[int, int, int], channels: Sequence[int], code: int) -> None:
        super().__init__()
        sizes = [shape[1:]]
        down: list[nn.Module] = []
        for before, after in pairwise((shape[0], *channels)):
            down += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        smallest = (channels[-1], *sizes.pop())
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(math.prod(smallest), code))
        up: list[nn.Module] = [nn.Linear(code, math.prod(smallest)), nn.ReLU(), nn.Unflatten(1, smallest)]
        for (before, after), size in zip(pairwise((*channels[::-1], channels[0])), sizes[::-1], strict=True):
            up += [nn.Upsample(size), nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.decoder = nn.Sequential(*up, nn.Conv2d(channels[0], shape[0], 3, padding=1), nn.Sigmoid())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → reconstruction (N, C, H, W)."""
        reconstruction: torch.Tensor = self.decoder(self.encoder(images))
        return reconstruction


class LinearAutoencoder(nn.Module):
    """One linear layer each way. The optimum is the projection onto the principal components.

    Args:
        shape: (C, H, W) of one image.
        code: width of the bottleneck.
    """

    def __init__(self, shape: tuple[int, int, int], code: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(math.prod(shape), code)
        self.decoder = nn.Linear(code, math.prod(shape))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → reconstruction (N, C, H, W)."""
        reconstruction: torch.Tensor = self.decoder(self.encoder(images.flatten(1)))
        return reconstruction.clamp(0.0, 1.0).reshape(images.shape)

    @torch.no_grad()
    def solve(self, images: torch.Tensor, *, seed: int) -> None:
        """Sets the weights with the least squared error for (N, C, H, W) images, N > code.

        The principal components are the global optimum: Baldi and Hornik, "Neural networks and principal component
        analysis: learning from examples without local minima", 1989.
        """
        pca = PCA(self.encoder.out_features, svd_solver="randomized", random_state=seed)
        pca.fit(images.flatten(1).cpu().numpy())
        components, mean = torch.from_numpy(pca.components_).float(), torch.from_numpy(pca.mean_).float()
        self.encoder.weight.copy_(components)
        self.encoder.bias.copy_(-components @ mean)
        self.decoder.weight.copy_(components.T)
        self.decoder.bias.copy_(mean)


def build(recipe: Recipe, shape: tuple[int, int, int], images: int) -> nn.Module:
    """Builds the recipe's network; its weights are initialised from torch's global generator.

    Args:
        recipe: type and widths of the network.
        shape: (C, H, W) of one image.
        images: number of images to fit on; the code of a linear network is at most this number - 1 wide.
    """
    if recipe.network == "linear":
        return LinearAutoencoder(shape, max(1, min(recipe.code, images - 1, math.prod(shape))))
    if recipe.network == "conv":
        return ConvAutoencoder(shape, recipe.hidden, recipe.code)
    return DenseAutoencoder(shape, recipe.hidden, recipe.code, linear_code=recipe.linear_code)


def parameter_count(network: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in network.parameters())
