"""Leaving out images that a list names."""

import os
from pathlib import Path

import pytest

from training.data import layouts
from training.data.labelled_files import LabelledFiles
from training.errors import TrainingError


@pytest.fixture
def files(tmp_path: Path) -> LabelledFiles:
    for name in ("normal/0.png", "normal/a b/1.png", "normal/2.png", "test/anomaly/x/3.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return layouts.read(tmp_path)


def exclude(files: LabelledFiles, text: str | bytes) -> LabelledFiles:
    file = files.root / "exclude"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return files.without(file)


def test_listed_files_are_left_out_and_counted(files: LabelledFiles) -> None:
    rest = exclude(
        files, "\ufeff# found on Monday\r\nnormal/a b/1.png\r\n\r\n./normal//2.png  \n\ntest/anomaly/x/3.png\n"
    )
    assert [rest.name_of(file) for file in rest.normal] == ["normal/0.png"]
    assert (rest.test, rest.excluded) == ((), 3)
    assert exclude(files, "# nothing\n") == files


def test_absolute_paths_and_names_in_any_encoding(files: LabelledFiles) -> None:
    assert exclude(files, f"{files.root}/normal/2.png").excluded == 1
    name = os.fsdecode(b"caf\xe9.png")
    (files.root / "normal" / name).touch()
    assert exclude(layouts.read(files.root), b"normal/caf\xe9.png").excluded == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("normal/9.png", r"lists normal/9\.png, which does not exist in "),
        ("notes.txt", r"lists notes\.txt, which is not one of its images in "),
        ("normal", r"lists normal, which is not one of its images in "),
    ],
)
def test_a_line_that_names_no_image_is_an_error(line: str, message: str, files: LabelledFiles) -> None:
    with pytest.raises(TrainingError, match=message):
        exclude(files, f"normal/0.png\n{line}\n")


def test_a_list_that_cannot_be_read_is_an_error(files: LabelledFiles) -> None:
    with pytest.raises(TrainingError, match="nothing cannot be read: No such file"):
        files.without(files.root / "nothing")
