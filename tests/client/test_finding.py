"""Files, folders and globs → picture files."""

from pathlib import Path

import pytest

from app.client.finding import NothingFound, find_pictures


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


def found(*paths: str | Path, leave_out: Path | None = None) -> list[str]:
    return [str(path) for path in find_pictures([Path(path) for path in paths], leave_out=leave_out)]


def test_a_folder_is_searched_below_in_order(tree: Path) -> None:
    assert found(".") == ["a.JPG", "b.png", "fünf.gif", "sub/c.webp", "sub/deep/d.tiff", "z[1].bmp"]
    assert found(tree / "sub") == [str(tree / "sub/c.webp"), str(tree / "sub/deep/d.tiff")]


def test_a_named_file_is_taken_whatever_it_is_called(tree: Path) -> None:
    assert found("notes.txt", "sub/.hidden.png") == ["notes.txt", "sub/.hidden.png"]


def test_globs(tree: Path) -> None:
    assert found("*.png") == ["b.png"]
    assert found("**/*.[tw]*") == ["notes.txt", "sub/c.webp", "sub/deep/d.tiff"]
    assert found(str(tree / "s*")) == [str(tree / "sub/c.webp"), str(tree / "sub/deep/d.tiff")]


def test_a_name_with_brackets_is_a_name_first(tree: Path) -> None:
    assert found("z[1].bmp") == ["z[1].bmp"]


def test_each_is_found_once_however_often_it_is_named(tree: Path) -> None:
    assert found("sub", "sub/c.webp", "./sub//c.webp", str(tree / "sub" / ".." / "sub" / "c.webp"), "sub/**") == [
        "sub/c.webp",
        "sub/deep/d.tiff",
    ]


def test_a_folder_can_be_left_out(tree: Path) -> None:
    assert found("sub", leave_out=Path("sub/deep")) == ["sub/c.webp"]
    assert found("sub", leave_out=tree / "sub" / "deep") == ["sub/c.webp"]


def test_links_to_folders_lead_nowhere(tree: Path) -> None:
    (tree / "sub" / "loop").symlink_to(tree)
    (tree / "sub" / "gone.png").symlink_to(tree / "nothing")
    (tree / "sub" / "link.png").symlink_to(tree / "b.png")
    assert found("sub") == ["sub/c.webp", "sub/deep/d.tiff", "sub/link.png"]


@pytest.mark.parametrize(
    ("path", "words"),
    [("empty", "empty holds no pictures"), ("nowhere", "there is no nowhere"), ("*.heic", r"nothing matches \*.heic")],
)
def test_what_leads_nowhere_is_told(tree: Path, path: str, words: str) -> None:
    with pytest.raises(NothingFound, match=words):
        found("b.png", path)
