"""Hostile files in the store: links, named pipes, sparse files and folders in the place of every file that is read."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from app.inference.bundles.bundle import file_record
from app.inference.bundles.signing import SigningKey, TrustedKeys
from app.inference.bundles.store import ModelStore
from app.inference.bundles.store_files import read_store_file
from app.inference.errors import BundleRejected, StoreNotWritable
from tests.process_memory import forget_peak, peak_bytes, resident_bytes
from tests.support import make_bundle

SECRET = "sk-live-4f9a"  # it could also be the name of a version
FILES = ["CURRENT", "v1/manifest.json", "v1/manifest.sig", "v1/model.pt", "v1/report/loss.png"]
SPARSE_BYTES = 3 * 2**30


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    key = SigningKey.generate()
    store = ModelStore(tmp_path / "store", TrustedKeys([key.public]))
    store.publish(*make_bundle("m", version="v1"), key)
    (tmp_path / "secret").write_text(SECRET)
    return store


def refusal(store: ModelStore) -> str:
    """Why the current version cannot be loaded."""
    with pytest.raises(BundleRejected) as caught:
        store.load("m", store.current("m"))
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
class TestHostileFile:
    def test_symbolic_link_is_refused_and_its_target_not_quoted(
        self, store: ModelStore, tmp_path: Path, name: str
    ) -> None:
        file = store.root / "m" / name
        file.unlink()
        file.symlink_to(tmp_path / "secret")
        reason = refusal(store)
        assert "symbolic link" in reason
        assert SECRET not in reason

    def test_link_to_its_own_copy_is_refused_too(self, store: ModelStore, tmp_path: Path, name: str) -> None:
        file = store.root / "m" / name
        file.rename(tmp_path / "copy")
        file.symlink_to(tmp_path / "copy")
        assert "symbolic link" in refusal(store)

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
    def test_named_pipe_or_folder_is_refused_at_once(
        self, store: ModelStore, name: str, make: Callable[[Path], None]
    ) -> None:
        file = store.root / "m" / name
        file.unlink()
        make(file)
        assert "it is not a regular file" in refusal(store)

    def test_sparse_file_is_not_read_into_memory(self, store: ModelStore, name: str) -> None:
        forget_peak(os.getpid())
        before = resident_bytes(os.getpid())
        os.truncate(store.root / "m" / name, SPARSE_BYTES)
        assert "bytes" in refusal(store)
        assert peak_bytes(os.getpid()) - before < 50 * 2**20


def test_manifest_that_lists_a_sparse_file_with_its_true_size_is_refused(tmp_path: Path) -> None:
    """Without signatures, whoever replaces the file also replaces its size and checksum."""
    store = ModelStore(tmp_path / "store")
    manifest, files = make_bundle("m", version="v1")
    store.publish(manifest, files)
    record = file_record(b"").model_copy(update={"bytes": SPARSE_BYTES})
    changed = manifest.model_copy(update={"files": {**manifest.files, "model.pt": record}})
    (store.root / "m/v1/manifest.json").write_bytes(changed.to_bytes())
    os.truncate(store.root / "m/v1/model.pt", SPARSE_BYTES)
    assert "model.pt is larger than 536,870,912 bytes" in refusal(store)


@pytest.mark.parametrize("folder", ["m", "m/v1", "m/v1/report"])
def test_folder_behind_a_symbolic_link_is_refused(store: ModelStore, tmp_path: Path, folder: str) -> None:
    shutil.move(store.root / folder, tmp_path / "elsewhere")
    (store.root / folder).symlink_to(tmp_path / "elsewhere")
    assert store.names() == ["m"]
    with pytest.raises(BundleRejected, match=r"symbolic link|names a version that is not in the store"):
        store.load("m", store.current("m"))


def test_store_may_be_a_symbolic_link_itself(store: ModelStore, tmp_path: Path) -> None:
    """Mounted volumes often are."""
    (tmp_path / "mounted").symlink_to(store.root)
    linked = ModelStore(tmp_path / "mounted")
    linked.load("m", linked.current("m"))


def test_hard_link_named_current_is_not_quoted(store: ModelStore, tmp_path: Path) -> None:
    (store.root / "m/CURRENT").unlink()
    (store.root / "m/CURRENT").hardlink_to(tmp_path / "secret")
    assert SECRET not in refusal(store)
    (tmp_path / "secret").write_text("two words\n" * 3)
    assert "words" not in refusal(store)


@pytest.mark.parametrize("text", [f'{{"schema_version": "{SECRET}"}}', f'{{"schema_version": 2, "{SECRET}": 1}}'])
def test_content_of_a_manifest_is_not_quoted(tmp_path: Path, text: str) -> None:
    store = ModelStore(tmp_path)
    store.publish(*make_bundle("m", version="v1"))
    (tmp_path / "m/v1/manifest.json").write_text(text)
    assert SECRET not in refusal(store)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_state_of_a_hostile_current_does_not_wait(store: ModelStore, make: Callable[[Path], None]) -> None:
    """So that the poll notices when it is repaired."""
    current = store.root / "m/CURRENT"
    good = store.state("m", files=True)
    assert good is not None
    assert good[0] == "v1"
    assert len(good[1]) == 4
    current.unlink()
    make(current)
    hostile = store.state("m", files=True)
    assert hostile is not None
    assert hostile == store.state("m", files=True) != good


@pytest.mark.parametrize("name", [".lock", ".publishing-CURRENT", ".publishing-v2"])
def test_writers_do_not_follow_links_or_wait_for_pipes(store: ModelStore, tmp_path: Path, name: str) -> None:
    (store.root / "m" / ".lock").unlink()
    (store.root / "m" / name).symlink_to(tmp_path / "secret")
    key = SigningKey.generate()
    trusting = ModelStore(store.root, TrustedKeys([key.public]))
    with suppress(StoreNotWritable):  # a lock that is a link stops the writer
        trusting.publish(*make_bundle("m", version="v2", seed=2), key)
    assert (tmp_path / "secret").read_text() == SECRET


def test_reading_reports_what_is_missing(tmp_path: Path) -> None:
    for folders in ((), ("nothing",)):
        with pytest.raises(FileNotFoundError):
            read_store_file(tmp_path, folders, "file", limit=1)
