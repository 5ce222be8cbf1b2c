"""Pretrained networks as feature extractors: which of their features are used, and how they are brought to one grid."""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.feature_extraction import create_feature_extractor

from training.errors import TrainingError
from training.features.pretrained import Pretrained, load_pretrained

DEFAULT: Final = "efficientnet_lite0"

_FINE_STRIDES: Final = (8, 16)
_DEEP_STRIDE: Final = 32
_PROBE: Final = (128, 128)


@dataclass(frozen=True)
class Backbone:
    """A frozen network, and where its weights come from.

    Attributes:
        name: as given on the command line.
        network: (N, 3, H, W) float32 in [0, 1] → fine features (N, F, h, w), deep features (N, D, h', w').
        licence: of the weights.
        sha256: of the file of weights.
    """

    name: str
    network: nn.Module
    licence: str
    sha256: str


def load_backbone(name: str, weights: Path | None = None) -> Backbone:
    """Loads a pretrained network as a feature extractor; arguments are those of :func:`load_pretrained`.

    Raises:
        TrainingError: as there, or the network has no maps of features that can be used.
    """
    pretrained = load_pretrained(name, weights)
    taps = _Taps(name, pretrained).eval().requires_grad_(requires_grad=False)
    return Backbone(name, taps, pretrained.licence, pretrained.sha256)


class _Taps(nn.Module):
    """Taps a network: fine features at stride 16 (with stride 8 averaged into it), deep ones at stride 32.

    Each tap is averaged over 3 × 3 places with the border padded by zeros, which damps the disturbance that the
    network's own zero padding causes near the border. A vision transformer's tokens are a map; its earlier taps are the
    fine features, its last ones the deep features.
    """

    def __init__(self, name: str, pretrained: Pretrained) -> None:
        super().__init__()
        self.network = _in_channels_last(_without_classifier(name, _with_folded_norms(pretrained.network.eval())))
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(pretrained.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(pretrained.std).reshape(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) in [0, 1] → fine (N, F, h, w), deep (N, D, h', w')."""
        standard = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        fine, deep = self._taps(standard)
        return _joined(fine), _joined(deep)

    def _taps(self, images: torch.Tensor) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        if hasattr(self.network, "blocks") and hasattr(self.network, "conv_stem"):
            return self._efficientnet_taps(images)
        taps = self._all_taps(images)
        strides = [round(images.shape[-1] / tap.shape[-1]) for tap in taps]
        if len(set(strides)) == 1:  # a transformer: all maps have the tokens' grid
            quarter = max(1, len(taps) // 4)
            return taps[quarter - 1 : 2 * quarter : quarter], [taps[3 * quarter - 1], taps[-1]]
        fine = [tap for tap, stride in zip(taps, strides, strict=True) if stride in _FINE_STRIDES]
        return fine, [tap for tap, stride in zip(taps, strides, strict=True) if stride == _DEEP_STRIDE]

    def _all_taps(self, images: torch.Tensor) -> list[torch.Tensor]:
        if hasattr(self.network, "forward_intermediates"):
            taps: list[torch.Tensor] = self.network.forward_intermediates(images, intermediates_only=True)
            return taps
        return [*self.network(images).values()]

    def _efficientnet_taps(self, images: torch.Tensor) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        values = self.network.bn1(self.network.conv_stem(images))
        taps = []
        for block in self.network.blocks:
            values = block(values)
            taps.append(values)
        return (taps[2], taps[4]), (taps[5], taps[6])


def _without_classifier(name: str, network: Any) -> Any:
    """The network without the layers after the last tap, which would be a third of a small network's weights."""
    if not hasattr(network, "reset_classifier"):
        return _last_maps(name, network)
    network.reset_classifier(0)
    if hasattr(network, "conv_head"):
        network.conv_head = network.bn2 = nn.Identity()
    return network


def _last_maps(name: str, network: nn.Module) -> nn.Module:
    """A network of torchvision's that returns its last map of each stride, by stride.

    The module is an outermost one: within the first block of the next stride there are wider maps, before its stride.

    Raises:
        TrainingError: it has no maps of these strides.
    """
    last: dict[int, str] = {}

    def remember(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4 and _PROBE[1] % output.shape[3] == 0:  # noqa: PLR2004
                stride = _PROBE[1] // output.shape[3]
                if path.count(".") <= last.get(stride, path).count("."):
                    last[stride] = path

        return hook

    hooks = [module.register_forward_hook(remember(path)) for path, module in network.named_modules() if path]
    with torch.inference_mode(), suppress(RuntimeError, AssertionError):  # networks of a fixed size
        network(torch.zeros(1, 3, *_PROBE))
    for each in hooks:
        each.remove()
    strides = (*_FINE_STRIDES, _DEEP_STRIDE)
    if not set(strides) <= set(last):
        raise TrainingError(f"{name} has no maps of features at the strides {', '.join(map(str, strides))}")
    nodes = {last[stride]: str(stride) for stride in strides}
    maps: nn.Module = create_feature_extractor(network, nodes, suppress_diff_warning=True)
    return maps


def _in_channels_last(network: Any) -> Any:
    """The layout that convolutions over few places and many channels are fastest in."""
    return network.to(memory_format=torch.channels_last)


def _with_folded_norms(network: nn.Module) -> nn.Module:
    """The network with each normalisation folded into the convolution before it, which saves a tenth of the time.

    Which module follows which is a matter of the forward pass, and only guessed here. If the folded network returns
    something else, the network is returned unchanged.
    """
    folded = copy.deepcopy(network)
    for parent in folded.modules():
        children = list(parent.named_children())
        for (_, convolution), (name, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                _fold(convolution, norm)
                activation = getattr(norm, "act", nn.Identity())  # timm's norms contain the activation
                setattr(parent, name, activation)
    return folded if _agree(network, folded) else network


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    mean, variance = norm.running_mean, norm.running_var
    if mean is not None and variance is not None:
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
        )


@torch.inference_mode()
def _agree(network: nn.Module, folded: nn.Module) -> bool:
    image = torch.rand(1, 3, *_PROBE, generator=torch.Generator().manual_seed(0))
    try:
        return torch.allclose(network(image), folded(image), rtol=1e-3, atol=1e-4)
    except (RuntimeError, AssertionError):  # networks of a fixed size, which have no such norms
        return False


def _joined(taps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Averaged over 3 × 3 places, brought to the coarsest grid, side by side."""
    pooled = [nn.functional.avg_pool2d(tap, 3, stride=1, padding=1) for tap in taps]
    height, width = min((tap.shape[2], tap.shape[3]) for tap in pooled)
    return torch.cat([nn.functional.adaptive_avg_pool2d(tap, (height, width)) for tap in pooled], dim=1)
