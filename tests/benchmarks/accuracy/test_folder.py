"""The benchmark on small image folders."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy import main
from tests.support import encode
from training.model.scoring_rules import SCORING_RULES


def write_folder(root: Path, *, photos: int = 1) -> list[str]:
    """80 normal images, in sub-folders of ``photos`` images if that is more than one; the command's arguments."""
    random = np.random.default_rng(0)
    for name, count, level in (("normal", 80, 60), ("test/normal", 20, 60), ("test/anomaly/bright", 10, 190)):
        for i in range(count):
            folder = root / "parts" / name
            if name == "normal" and photos > 1:
                folder /= f"part-{i // photos}"
            folder.mkdir(parents=True, exist_ok=True)
            image = random.integers(level, level + 40, (16, 16), dtype=np.uint8)
            (folder / f"{i}.png").write_bytes(encode(Image.fromarray(image)))
    return ["folder", str(root / "parts"), "--data-dir", str(root / "cache"), "--seeds", "2"]


def rows(printed: str) -> dict[str, str]:
    """The first row of each heading, without borders."""
    cells = [line.strip("│ ").split("│") for line in printed.splitlines() if line.startswith("│")]
    return {first.strip(): " ".join(rest) for first, *rest in reversed(cells)}


def test_pixel_recipes_have_every_scoring_rule_and_the_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*write_folder(tmp_path), "--recipes", "tutorial,linear", "--size", "16"]) == 0
    printed = capsys.readouterr().out
    for recipe in ("recipe tutorial", "recipe linear", "PCA, 64 components", "PCA, 256 components"):
        assert recipe in printed
    assert all(rule in printed for rule in SCORING_RULES)
    assert "random split" in printed
    assert "split by group" not in printed
    assert "1.000 [1.000–1.000]" in rows(printed)["AUROC, bright"]
    assert "not guaranteed" in rows(printed)["detected at 1%"]
    assert "not guaranteed" not in rows(printed)["detected at 5%"]


def test_groups_are_measured_by_group_and_by_random_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """40 objects cannot guarantee 1 %: neither table does, as 80 images are too few as well."""
    assert main([*write_folder(tmp_path, photos=2), "--recipes", "features", "--size", "32"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("recipe features, split by group") < printed.index("recipe features, random split")
    assert "PCA" not in printed
    by_group = printed[: printed.index("random split")]
    assert "counting images" in by_group  # the second column
    assert rows(printed)["AUROC"].split() == ["1.000", "[1.000–1.000]"] * 2
    assert rows(printed)["detected at 5%"].split()[:2] == ["1.000", "[1.000–1.000]"]


def test_another_backbone_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*write_folder(tmp_path), "--recipes", "features", "--backbone", "efficientnet_lite7"]
    assert main(arguments) == 1
    assert "unknown backbone 'efficientnet_lite7'" in capsys.readouterr().err


def test_folder_without_anomalies_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "normal").mkdir()
    for i in range(60):
        (tmp_path / "normal" / f"{i}.png").write_bytes(encode(Image.new("L", (9, 9), i)))
    assert main(["folder", str(tmp_path), "--data-dir", str(tmp_path / "cache")]) == 1
    assert "needs normal test images and anomalies" in capsys.readouterr().err


def test_unknown_recipe_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["folder", "parts", "--recipes", "linear,featurs"])
    assert stop.value.code == 2
    assert "unknown recipe featurs" in capsys.readouterr().err
