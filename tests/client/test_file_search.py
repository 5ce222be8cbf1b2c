"""Finding image files from files, folders and glob patterns."""

from pathlib import Path

import pytest

from app.client.file_search import NothingFound, find_images


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.png", "a.JPG", "sub/c.webp", "sub/deep/d.tiff", "z[1].bmp", "notes.txt", "sub/.hidden.png", ".cache/e.png",
        "fünf.gif", "empty/readme.md",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def found(*paths: str | Path, exclude: Path | None = None) -> list[str]:
    return [str(path) for path in find_images([Path(path) for path in paths], exclude=exclude)]


def test_folder_is_searched_recursively_in_sorted_order(tree: Path) -> None:
    assert found(".") == ["a.JPG", "b.png", "fünf.gif", "sub/c.webp", "sub/deep/d.tiff", "z[1].bmp"]
    assert found(tree / "sub") == [str(tree / "sub/c.webp"), str(tree / "sub/deep/d.tiff")]


def test_named_file_needs_no_image_suffix(tree: Path) -> None:
    assert found("notes.txt", "sub/.hidden.png") == ["notes.txt", "sub/.hidden.png"]


def test_glob_patterns(tree: Path) -> None:
    assert found("*.png") == ["b.png"]
    assert found("**/*.[tw]*") == ["notes.txt", "sub/c.webp", "sub/deep/d.tiff"]
    assert found(str(tree / "s*")) == [str(tree / "sub/c.webp"), str(tree / "sub/deep/d.tiff")]


def test_existing_file_name_with_brackets_is_not_a_glob(tree: Path) -> None:
    assert found("z[1].bmp") == ["z[1].bmp"]


def test_each_file_is_found_once(tree: Path) -> None:
    assert found("sub", "sub/c.webp", "./sub//c.webp", str(tree / "sub" / ".." / "sub" / "c.webp"), "sub/**") == [
        "sub/c.webp",
        "sub/deep/d.tiff",
    ]


def test_excluded_folder(tree: Path) -> None:
    assert found("sub", exclude=Path("sub/deep")) == ["sub/c.webp"]
    assert found("sub", exclude=tree / "sub" / "deep") == ["sub/c.webp"]


def test_links_to_folders_and_broken_links_are_skipped(tree: Path) -> None:
    (tree / "sub" / "loop").symlink_to(tree)
    (tree / "sub" / "gone.png").symlink_to(tree / "nothing")
    (tree / "sub" / "link.png").symlink_to(tree / "b.png")
    assert found("sub") == ["sub/c.webp", "sub/deep/d.tiff", "sub/link.png"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("empty", "empty contains no images"),
        ("nowhere", "nowhere does not exist"),
        ("*.heic", r"nothing matches \*.heic"),
    ],
)
def test_nothing_found_is_an_error(tree: Path, path: str, message: str) -> None:
    with pytest.raises(NothingFound, match=message):
        found("b.png", path)
