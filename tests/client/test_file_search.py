"""Finding image files from files, folders and glob patterns."""

from pathlib import Path

import pytest

from app.client.runs.file_search import NothingFound, find_images
from app.files.search import PassedOver


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
    return [str(path) for path in find_images([Path(path) for path in paths], PassedOver(), exclude=exclude)]


def test_folder_is_searched_recursively_in_sorted_order(tree: Path) -> None:
    assert found(".") == ["a.JPG", "b.png", "fünf.gif", "sub/c.webp", "sub/deep/d.tiff", "z[1].bmp"]
    assert found(tree / "sub") == [str(tree / "sub/c.webp"), str(tree / "sub/deep/d.tiff")]


def test_named_file_needs_no_image_suffix(tree: Path) -> None:
    (tree / "Thumbs.db").touch()
    assert found("notes.txt", "sub/.hidden.png", "Thumbs.db") == ["notes.txt", "sub/.hidden.png", "Thumbs.db"]


def test_glob_patterns(tree: Path) -> None:
    assert found("*.png") == ["b.png"]
    assert found("**/*.[tw]*") == ["notes.txt", "sub/c.webp", "sub/deep/d.tiff"]
    assert found(str(tree / "s*")) == [str(tree / "sub/c.webp"), str(tree / "sub/deep/d.tiff")]
    assert found("sub/**") == ["sub/c.webp", "sub/deep/d.tiff"]
    assert found("su?/../*.png") == ["sub/../b.png"]
    assert found("**/.h*") == ["sub/.hidden.png"]


def test_wildcards_match_no_hidden_or_system_names_and_follow_links_once(tree: Path) -> None:
    (tree / "sub" / "@eaDir").mkdir()
    (tree / "sub" / "@eaDir" / "c.webp").touch()
    (tree / "sub" / "loop").symlink_to(tree)
    assert found("**/*.webp") == ["sub/c.webp"]
    assert found("sub/*") == ["sub/c.webp", "sub/deep/d.tiff", "sub/loop/a.JPG", "sub/loop/b.png", "sub/loop/fünf.gif",
                              "sub/loop/sub/c.webp", "sub/loop/sub/deep/d.tiff", "sub/loop/z[1].bmp"]  # fmt: skip
    assert found("sub/@eaDir/*") == ["sub/@eaDir/c.webp"]


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


def test_links_to_folders_are_followed_once_and_broken_links_skipped(tree: Path) -> None:
    (tree / "more").mkdir()
    (tree / "more" / "m.png").touch()
    (tree / "sub" / "loop").symlink_to(tree / "sub")
    (tree / "sub" / "more").symlink_to(tree / "more")
    (tree / "sub" / "gone.png").symlink_to(tree / "nothing")
    (tree / "sub" / "link.png").symlink_to(tree / "b.png")
    assert found("sub") == ["sub/c.webp", "sub/deep/d.tiff", "sub/link.png", "sub/more/m.png"]


def test_a_link_to_the_excluded_folder_is_not_searched(tree: Path) -> None:
    (tree / "sub" / "results").symlink_to(tree / "later")
    (tree / "later").mkdir()
    (tree / "later" / "m.png").touch()
    assert found("sub", exclude=tree / "later") == ["sub/c.webp", "sub/deep/d.tiff"]


def test_what_is_passed_over_is_counted_once(tree: Path) -> None:
    passed_over = PassedOver()
    list(find_images([Path(), Path("sub"), Path("notes.txt")], passed_over))
    assert passed_over.lines() == ["2 files not looked at: .txt 1, .md 1", "2 hidden and system entries passed over"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("empty", r"empty contains no images \(.*\.png.*\); 1 file not looked at: \.md 1$"),
        ("nowhere", "nowhere does not exist"),
        ("*.heic", r"nothing matches \*.heic"),
    ],
)
def test_nothing_found_is_an_error(tree: Path, path: str, message: str) -> None:
    with pytest.raises(NothingFound, match=message):
        found("b.png", path)
