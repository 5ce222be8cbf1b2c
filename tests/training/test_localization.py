"""A run with masks of defects and a region of interest, from the folder to the published version."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from app.inference.bundles.store import ModelStore
from training.data.datasets import Source
from training.data.interest import Rectangle
from training.model.recipes import LINEAR
from training.model.scoring_rules import SCORING_RULES
from training.pipeline import train
from training.run import Published, Run

SIDE = 32
RANDOM = np.random.default_rng(7)
COUNTED = Rectangle(0, 0, 50, 100, in_percent=True)


def surface() -> NDArray[np.uint8]:
    """Smooth grey with a little noise; the right half, which does not count, is different in every image."""
    image = np.linspace(90, 150, SIDE)[:, None] + RANDOM.normal(0, 2, (SIDE, SIDE))
    image[:, SIDE // 2 :] = RANDOM.uniform(0, 255, (SIDE, SIDE // 2))
    return image.astype(np.uint8)


def save(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("parts")
    parts = folder / "parts"
    for number in range(60):
        save(parts / "train" / "good" / f"{number}.png", surface())
    for number in range(8):
        save(parts / "test" / "good" / f"{number}.png", surface())
        image, mask = surface(), np.zeros((2 * SIDE, 2 * SIDE), np.uint8)
        image[4 + number : 10 + number, 5:11] = 250
        mask[8 + 2 * number : 20 + 2 * number, 10:22] = 255
        save(parts / "test" / "spot" / f"{number}.png", image)
        save(parts / "ground_truth" / "spot" / f"{number}_mask.png", mask)
    return train(
        Run(
            source=Source(str(parts), data_dir=folder, size=(SIDE, SIDE), roi=COUNTED),
            name="parts",
            recipe=LINEAR,
            rule=SCORING_RULES["local"],
            store=folder / "store",
            false_alarm_rate=0.05,
            guarantee="marginal",
            seed=1,
            device="cpu",
            threads=1,
            calibration="cross",
        )
    )


def test_masks_of_a_test_folder_are_evaluated(published: Published) -> None:
    evaluation = published.manifest.evaluation
    assert evaluation is not None
    assert evaluation.detection_rate == 1
    figures = evaluation.localization
    assert figures is not None
    assert (figures.images, figures.defects) == (8, 8)
    assert figures.defects_found == 1
    assert (figures.pixel_auroc or 0) > 0.95
    assert (figures.aupro or 0) > 0.9
    assert (figures.regions_on_defects or 0) > 0.7


def test_report_shows_the_true_outlines(published: Published) -> None:
    image = np.asarray(Image.open(published.directory / "report" / "localization.png").convert("RGB")).astype(int)
    green = (image[..., 1] > 180) & (image[..., 0] < 120) & (image[..., 2] < 120)
    assert green.sum() > 100
    html = (published.directory / "report" / "index.html").read_text()
    assert "AUPRO up to 0.3" in html
    assert "Fit for use" in html


def test_region_of_interest_is_in_the_bundle(published: Published) -> None:
    record = published.manifest.region_of_interest
    assert record is not None
    assert record.share == 0.5
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(record.mask))))
    assert mask[:, : SIDE // 2].min() == 255
    assert mask[:, SIDE // 2 :].max() == 0


def test_what_is_outside_changes_nothing(published: Published) -> None:
    store = ModelStore(published.directory.parent.parent)
    bundle = store.load("parts", store.current("parts"))
    images = torch.from_numpy(np.stack([surface() for _ in range(4)]))[:, None] / 255
    changed = images.clone()
    changed[..., SIDE // 2 :] = 1
    one, other = bundle.score_batch(images), bundle.score_batch(changed)
    assert other.score == pytest.approx(one.score, rel=1e-5)
    assert other.mse == pytest.approx(one.mse, rel=1e-5)
    assert one.error_map is not None
    assert one.error_map[..., SIDE // 2 :].max() == 0
    assert (other.reconstruction[..., SIDE // 2 :] == 1).all()
    spotted = images.clone()
    spotted[..., 8:14, 4:10] = 1
    assert min(bundle.score_batch(spotted).score) > published.manifest.threshold
