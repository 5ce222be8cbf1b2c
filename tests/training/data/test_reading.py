"""The progress of reading a folder."""

from pathlib import Path

from tests.support import gradient
from training.data.datasets import Reading, Source, load


def test_reading_counts_each_image_that_is_decoded_once(tmp_path: Path) -> None:
    for folder, count in (("normal", 5), ("test/normal", 2)):
        (tmp_path / "parts" / folder).mkdir(parents=True)
        for index in range(count):
            gradient(8 + index, 8).save(tmp_path / "parts" / folder / f"{index}.png")
    source = Source(str(tmp_path / "parts"), data_dir=tmp_path / "data")
    totals, images = list[int](), list[int]()
    reading = Reading(totals.append, lambda: images.append(1))
    load(source, folder_size=(8, 8), reading=reading)
    assert (totals, len(images)) == ([7], 7)
    load(source, folder_size=(8, 8), reading=reading)  # from the cache
    assert (totals, len(images)) == ([7, 7], 7)
