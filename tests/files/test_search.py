"""The search for image files: hidden entries, links, and counts of what was not looked at."""

import os
from pathlib import Path

import pytest

from app.files.formats import SUFFIXES
from app.files.search import PassedOver, find_folders, find_images, folder_identity

CLUTTER = (
    "._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/0-checkpoint.png", "@eaDir/0.png",
    "__MACOSX/0.png", "$RECYCLE.BIN/0.png", "#recycle/0.png", ".cache/a/0.png",
)  # fmt: skip


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def search(root: Path) -> tuple[list[str], PassedOver]:
    passed_over = PassedOver()
    return [os.path.relpath(path, root) for path in find_images(str(root), passed_over)], passed_over


def test_hidden_and_system_entries_are_passed_over_and_counted(tmp_path: Path) -> None:
    found, passed_over = search(write(tmp_path, "0.png", "a/1.png", *CLUTTER, *(f"a/{name}" for name in CLUTTER)))
    assert found == ["0.png", "a/1.png"]
    assert passed_over.hidden == 2 * len(CLUTTER)
    assert passed_over.lines() == ["20 hidden and system entries passed over"]


def test_a_hidden_folder_is_searched_if_it_is_named(tmp_path: Path) -> None:
    assert search(write(tmp_path / ".cache", "0.png"))[0] == ["0.png"]


def test_every_suffix_of_the_table_is_found_in_any_case(tmp_path: Path) -> None:
    names = [f"{number:02}{suffix}" for number, suffix in enumerate((*SUFFIXES, *map(str.upper, SUFFIXES), ".Jpeg"))]
    found, passed_over = search(write(tmp_path, *names))
    assert found == names
    assert passed_over.lines() == []
    assert {".jfif", ".jpe"} <= set(SUFFIXES)


def test_other_files_are_counted_by_suffix(tmp_path: Path) -> None:
    write(tmp_path, *(f"{n}.PSD" for n in range(12)), *(f"a/{n}.txt" for n in range(7)), "a/note", "0.png")
    assert search(tmp_path)[1].lines() == ["20 files not looked at: .psd 12, .txt 7, no suffix 1"]
    write(tmp_path, *(f"0.{n}" for n in range(15)))
    (line,) = search(tmp_path)[1].lines()
    assert line.startswith("35 files not looked at: .psd 12, .txt 7, ")
    assert line.endswith(", others 8")


def test_one_file_and_one_entry_are_singular(tmp_path: Path) -> None:
    assert search(write(tmp_path, ".x", "a.txt"))[1].lines() == [
        "1 file not looked at: .txt 1",
        "1 hidden or system entry passed over",
    ]


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", *(f"{day}/{n}.png" for day in ("monday", "tuesday") for n in range(3)))
    normal = write(tmp_path / "normal", "0.png")
    (normal / "monday").symlink_to(elsewhere / "monday")
    (normal / "tuesday").symlink_to(elsewhere / "tuesday")
    (normal / "again").symlink_to(elsewhere / "monday")
    (normal / "loop").symlink_to(normal)
    (normal / "up").symlink_to(tmp_path / "normal" / "..")
    found, _ = search(normal)
    assert found == [
        "0.png", "again/0.png", "again/1.png", "again/2.png", "tuesday/0.png", "tuesday/1.png", "tuesday/2.png",
    ]  # fmt: skip


def test_broken_links_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "0.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "1.png").symlink_to(tmp_path / "0.png")
    found, passed_over = search(tmp_path)
    assert found == ["0.png", "1.png"]
    assert passed_over.lines() == ["2 files not looked at: broken link 2"]


def test_images_are_sorted_by_the_names_of_folders_and_files(tmp_path: Path) -> None:
    found, _ = search(write(tmp_path, "b.png", "a/2.png", "a-b.png", "a.png", "c/d/1.png", "c/2.png", "c/e.png"))
    assert found == [str(path) for path in sorted(map(Path, found))]


def test_a_folder_counts_once_however_often_it_is_searched(tmp_path: Path) -> None:
    write(tmp_path, "a/x.txt", "a/.x")
    passed_over = PassedOver()
    for folder in (tmp_path, tmp_path / "a", tmp_path):
        list(find_images(str(folder), passed_over))
    assert (passed_over.others, passed_over.hidden) == ({".txt": 1}, 1)


def test_folders_that_are_known_or_skipped_are_not_searched(tmp_path: Path) -> None:
    write(tmp_path, "a/0.png", "b/0.png", "c/0.png")
    visited = {folder_identity(tmp_path / "a")}
    found = find_images(str(tmp_path), PassedOver(), visited=visited, skip=lambda path: path.endswith("b"))
    assert [os.path.relpath(path, tmp_path) for path in found] == ["c/0.png"]


def test_find_folders(tmp_path: Path) -> None:
    write(tmp_path, "a/b/0.txt", ".x/0.txt", "c.txt")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert [os.path.relpath(path, tmp_path) for path in find_folders(str(tmp_path))] == [".", "a", "a/b"]


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        search(tmp_path / "nothing")
