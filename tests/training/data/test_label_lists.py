"""Lists of labelled images in JSON Lines: labels, addresses, and what is wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.data import layouts
from training.data.labelled_files import LabelledFiles
from training.errors import TrainingError

CLASSIFIED = {"type": "groundtruth/image-classification", "confidence": 1, "human-annotated": "yes"}


def line(address: str, label: Any, name: str | None = None, attribute: str = "anomaly-label") -> dict[str, Any]:
    metadata = CLASSIFIED if name is None else {**CLASSIFIED, "class-name": name}
    return {"source-ref": address, attribute: label, f"{attribute}-metadata": metadata}


def read(root: Path, *lines: dict[str, Any], name: str = "output.manifest") -> LabelledFiles:
    (root / name).write_text("".join(f"{json.dumps(each)}\n" for each in lines) + "\n")
    return layouts.read(root / name)


def images(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_normal_images_are_learned_and_anomalies_are_test_images_by_class(tmp_path: Path) -> None:
    images(tmp_path, *(f"parts/{n}.png" for n in range(5)))
    files = read(
        tmp_path,
        line("s3://bucket/set/parts/0.png", 0, "normal"),
        line("s3://bucket/set/parts/1.png", 1, "scratch"),
        line("s3://bucket/set/parts/2.png", 0),
        line("s3://bucket/set/parts/3.png", "1"),
        line("parts/4.png", 11, "Normal", attribute="auto-label"),
    )
    assert [files.name_of(file) for file in files.normal] == ["parts/0.png", "parts/2.png", "parts/4.png"]
    assert [(files.name_of(file), file.kind) for file in files.test] == [
        ("parts/1.png", "scratch"),
        ("parts/3.png", "anomaly"),
    ]
    assert [str(file.place) for file in files.normal] == ["0.png", "2.png", "4.png"]  # no groups in a single folder


def test_sub_folders_of_the_normal_images_are_groups(tmp_path: Path) -> None:
    images(tmp_path, "set/day1/0.png", "set/day2/0.png")
    files = read(tmp_path, line("s3://b/set/day1/0.png", 0), line("s3://b/set/day2/0.png", 0))
    assert [str(file.place) for file in files.normal] == ["day1/0.png", "day2/0.png"]


def test_the_longest_end_of_an_address_that_exists_is_read(tmp_path: Path) -> None:
    images(tmp_path, "train/normal/0.png", "normal/0.png", "0.png", "deep/in/here/only.png")
    absolute = images(tmp_path / "x y", "1.png") / "1.png"
    files = read(
        tmp_path,
        line("s3://bucket/parts/train/normal/0.png", 0),
        line("s3://bucket/elsewhere/only.png", 0),
        line(str(absolute), 0),
        line(absolute.with_name("1.png").as_uri(), 0),
        name="a.jsonl",
    )
    assert [files.name_of(file) for file in files.normal] == [
        "deep/in/here/only.png",
        "train/normal/0.png",
        "x y/1.png",
    ]


def test_missing_images_are_counted(tmp_path: Path) -> None:
    images(tmp_path, "0.png", "a/same.png", "b/same.png")
    lines = [line(f"s3://bucket/{name}.png", 0) for name in ("0", "1", "2", "same")]
    with pytest.raises(TrainingError, match=r"^3 of 4 images of .* the first is s3://bucket/1\.png$"):
        read(tmp_path, *lines)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line("0.png", 1)], "lists no normal images"),
        ([line("0.png", 0), line("0.png", 1)], r"line 2: .*0\.png is labelled anomaly here and normal before"),
        ([line("0.png", 7)], "line 1: anomaly-label is 7; it must be 0 or 1"),
        ([{"source-ref": "0.png"}], "line 1 has no label such as anomaly-label"),
        ([line("0.png", 0, attribute="a") | line("0.png", 0, attribute="b")], r"line 1 has several labels \(a, b\)"),
        ([{"anomaly-label": 0}], "line 1 has no source-ref"),
    ],
)
def test_unusable_lines(lines: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        read(images(tmp_path, "0.png"), *lines)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{\n", b"[]\n", b"\xff\xfe", b"[" * 100_000])
def test_other_files_are_no_lists(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(TrainingError):
        layouts.read(tmp_path / "x.jsonl")
