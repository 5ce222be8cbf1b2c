"""Where weights come from, and every way in which they can be missing."""

from pathlib import Path

import pytest
import torch

from training.errors import TrainingError
from training.features.pretrained import load_pretrained


def test_an_unknown_backbone_is_refused_with_a_suggestion() -> None:
    with pytest.raises(TrainingError, match="unknown backbone 'efficientnet_lite7'; did you mean"):
        load_pretrained("efficientnet_lite7")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(3)}, file)
    with pytest.raises(
        TrainingError, match="has no weights for tf_efficientnet_lite0: the shapes of the tensors differ"
    ):
        load_pretrained("efficientnet_lite0", file)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_without_network_one_line_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else its client tries for most of a minute
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(TrainingError, match=r"cannot be downloaded .* give a file with --weights") as caught:
        load_pretrained(name)
    assert "\n" not in str(caught.value)
