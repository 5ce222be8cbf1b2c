"""The sample images that a version offers to try."""

import dataclasses
from pathlib import Path

from PIL import Image

from tests.conftest import digits_run
from tests.support import encode
from tests.training.test_pipeline import marked
from training.data.datasets import Source
from training.pipeline import train
from training.reporting.samples import is_sample


def sample_names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "report").glob("sample-*"))


def test_samples_are_the_files_of_the_test_folder_at_their_own_proportions(tmp_path: Path) -> None:
    """One image is sideways (EXIF), one is large, one has a kind with spaces."""
    parts = tmp_path / "parts"
    for folder, count in (
        ("normal", 60),
        ("test/normal", 5),
        ("test/anomaly/deep scratch!", 3),
        ("test/anomaly/dent", 3),
    ):
        (parts / folder).mkdir(parents=True)
        for number in range(count):
            sideways = Image.Exif()
            sideways[0x0112] = 6
            image = marked(900 if folder.endswith("dent") else 30, 20, number)
            (parts / folder / f"{number}.png").write_bytes(encode(image, exif=sideways))
    source = Source(str(parts), data_dir=tmp_path / "data", size=(16, 16))
    published = train(dataclasses.replace(digits_run(tmp_path / "store"), source=source, name="parts"))
    assert sample_names(published.directory) == [
        "sample-01-normal.png",
        "sample-02-normal.png",
        "sample-03-normal.png",
        "sample-04-deep-scratch.png",
        "sample-05-dent.png",
    ]
    sizes = {}
    for path in (published.directory / "report").glob("sample-*"):
        with Image.open(path) as image:
            sizes[path.name] = image.size
            assert "exif" not in image.info
    assert sizes["sample-01-normal.png"] == sizes["sample-04-deep-scratch.png"] == (20, 30)
    assert sizes["sample-05-dent.png"] == (11, 512)
    assert set(filter(is_sample, published.manifest.files)) == {f"report/{name}" for name in sizes}
