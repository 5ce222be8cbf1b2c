"""Writes on a full disk: lines are whole or absent, and replaced files keep their content."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.files.writing import append_lines, replace_file
from tests.full_disk import file_size_limit


@contextmanager
def appending(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("room", range(4, 9))
def test_line_that_does_not_fit_is_removed_again(tmp_path: Path, room: int) -> None:
    with appending(tmp_path / "lines") as file:
        append_lines(file, b"one\n")
        with file_size_limit(room), pytest.raises(OSError, match="too large"):
            append_lines(file, b"two, three\n")
        append_lines(file, b"four\n")
    assert (tmp_path / "lines").read_bytes() == b"one\nfour\n"


def test_line_that_a_killed_process_cut_is_ended_before_the_next(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"one\ntw")
    with appending(tmp_path / "lines") as file:
        append_lines(file, b"three\n")
    assert (tmp_path / "lines").read_bytes() == b"one\ntw\nthree\n"


def test_replaced_file_keeps_its_content_if_the_new_one_does_not_fit(tmp_path: Path) -> None:
    replace_file(tmp_path / "state", b"old")
    with file_size_limit(5), pytest.raises(OSError, match="too large"):
        replace_file(tmp_path / "state", b"new content")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"state": b"old"}
    replace_file(tmp_path / "state", b"new content")
    assert (tmp_path / "state").read_bytes() == b"new content"
