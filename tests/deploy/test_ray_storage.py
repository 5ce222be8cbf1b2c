"""deploy/ray: which images of a folder or bucket are found."""

from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

import pyarrow as pa
import pyarrow.parquet as pq

from app.files.search import PassedOver
from bulk.errors import CannotRun
from bulk.storage import find_images


def test_find_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/c.jpeg", "a/d/e.jfif", "a/notes.txt", ".hidden.png", ".cache/f.png", "@eaDir/g.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [str(tmp_path / name) for name in ("a/c.jpeg", "a/d/e.jfif", "b.PNG")]
    for prefix, scheme in (("", ""), ("file://", ""), ("local://", "local://")):
        passed_over = PassedOver()
        images = find_images(f"{prefix}{tmp_path}", "path", passed_over)
        assert images.to_pylist() == [f"{scheme}{name}" for name in found]
        assert passed_over.lines() == ["1 file not looked at: .txt 1", "3 hidden and system entries passed over"]
    listed = tmp_path / "listed.parquet"
    pq.write_table(pa.table({"path": ["x.png", None, "s3://bucket/y.png", "x.png"], "size": [1, 2, 3, 4]}), listed)
    assert find_images(str(listed), "path", PassedOver()).to_pylist() == ["x.png", "s3://bucket/y.png"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0.png").touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "monday").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "loop").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "gone.png").symlink_to(tmp_path / "nothing")
    passed_over = PassedOver()
    found = find_images(str(tmp_path / "images"), "path", passed_over).to_pylist()
    assert found == [str(tmp_path / "images" / "monday" / "0.png")]
    assert passed_over.lines() == ["1 file not looked at: broken link 1"]


@pytest.mark.parametrize(
    ("source", "column", "message"),
    [
        ("nowhere", "path", "nowhere cannot be read"),
        ("bare", "path", "bare contains no images; 1 file not looked at: .psd 1"),
        ("listed.parquet", "url", "has no column 'url', only path, size"),
        ("listed.parquet", "size", "is int64, not text"),
        ("damaged.parquet", "path", "damaged.parquet cannot be read"),
        ("empty.parquet", "path", "empty.parquet lists no images"),
        ("nothing://bucket", "path", "nothing:// cannot be read"),
    ],
)
def test_unusable_source_is_an_error(
    source: str, column: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bare").mkdir()
    Path("bare", "x.psd").touch()
    pq.write_table(pa.table({"path": ["x.png"], "size": [1]}), "listed.parquet")
    pq.write_table(pa.table({"path": pa.array([], pa.string())}), "empty.parquet")
    Path("damaged.parquet").write_bytes(b"PAR1")
    with pytest.raises(CannotRun) as caught:
        find_images(source, column, PassedOver())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
