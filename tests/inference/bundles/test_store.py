"""The model store: atomic publication, activation and removal of leftovers, also with several writers."""

import os
import re
import resource
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.inference.bundles.store import ModelStore
from app.inference.errors import BundleRejected, StoreNotWritable, UnknownFile, UnknownModel, UnknownVersion
from tests import warm
from tests.full_disk import file_size_limit
from tests.support import ROOT, make_bundle

NOBODY = 65534
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # on a busy machine, threads wait for each other


def start(program: str, *arguments: object, log_folder: Path) -> warm.Process:
    """Starts a program from this folder in a process of its own. Coverage would take longer than its sixty forks."""
    module, log = f"tests.inference.bundles.{program}", log_folder / f"{uuid.uuid4()}.log"
    return warm.Process(module, *map(str, arguments), cwd=ROOT, env=ONE_THREAD, log=log, measure_coverage=False)


@pytest.fixture
def empty_store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def test_published_version_can_be_loaded(empty_store: ModelStore) -> None:
    manifest, files = make_bundle("m")
    directory = empty_store.publish(manifest, files)
    assert empty_store.names() == ["m"]
    assert empty_store.current("m") == manifest.version == directory.name
    loaded = empty_store.load("m", manifest.version).manifest
    assert loaded == empty_store.manifest("m")
    assert loaded.to_bytes() == manifest.to_bytes() == (directory / "manifest.json").read_bytes()
    assert (directory.parent / "CURRENT").read_text() == f"{manifest.version}\n"


def test_files_are_compared_with_the_manifest(empty_store: ModelStore) -> None:
    manifest, files = make_bundle("m")
    directory = empty_store.publish(manifest, files)
    assert {name: empty_store.file(manifest, name) for name in files} == files
    for name in ("manifest.json", "report/nothing.png", "report/../model.pt", "../CURRENT", ""):
        with pytest.raises(UnknownFile, match=re.escape(f"has no file {name!r}")):
            empty_store.file(manifest, name)
    image = directory / "report" / "loss.png"
    image.write_bytes(image.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleRejected, match=f"m/{manifest.version}: report/loss.png was changed"):
        empty_store.file(manifest, "report/loss.png")


def test_last_published_version_is_current_unless_current_is_edited(empty_store: ModelStore) -> None:
    first, second = make_bundle("m", seed=1), make_bundle("m", seed=2)
    empty_store.publish(*first)
    directory = empty_store.publish(*second)
    assert empty_store.current("m") == second[0].version
    (directory.parent / "CURRENT").write_text(first[0].version)
    assert empty_store.current("m") == first[0].version


def test_missing_store_has_no_models(empty_store: ModelStore) -> None:
    assert empty_store.names() == []
    with pytest.raises(UnknownModel, match="no model named 'm'"):
        empty_store.current("m")


def test_missing_model_is_named_with_what_the_store_has(empty_store: ModelStore) -> None:
    assert empty_store.why_missing("m") == f"there is no model store {empty_store.root}, so no model 'm'"
    empty_store.root.mkdir()
    assert empty_store.why_missing("m") == f"the model store {empty_store.root} has no model 'm': it is empty"
    for number in range(12):
        (empty_store.root / f"part-{number:02}").mkdir()
        (empty_store.root / f"part-{number:02}" / "CURRENT").touch()
    assert empty_store.why_missing("part-03") is None
    reason = empty_store.why_missing("prat-03")
    assert reason is not None
    assert "has no model 'prat-03'; did you mean 'part-03'? It has part-00, part-01, " in reason
    assert reason.endswith(", part-09 and 2 more")
    assert "has no model 'xyz'. It has part-00" in str(empty_store.why_missing("xyz"))


@pytest.mark.parametrize("name", ["..", "../m", "m/../m", "/etc", "", "m\n", ".hidden", "a" * 65, "m\0"])
def test_model_names_cannot_leave_the_store(empty_store: ModelStore, name: str) -> None:
    empty_store.publish(*make_bundle("m"))
    with pytest.raises(UnknownModel):
        empty_store.current(name)


@pytest.mark.parametrize("text", ["", "..", "../..", "no-such-version", "a/b", "\x00\xff", "x" * 5000])
def test_invalid_current_is_refused_in_one_line(empty_store: ModelStore, text: str) -> None:
    directory = empty_store.publish(*make_bundle("m"))
    (directory.parent / "CURRENT").write_text(text, encoding="latin-1")
    with pytest.raises(BundleRejected, match=r"^m/CURRENT ") as caught:
        empty_store.current("m")
    assert "\n" not in str(caught.value)


def test_version_that_fails_verification_is_not_published(empty_store: ModelStore) -> None:
    valid, (manifest, files) = make_bundle("m", seed=1), make_bundle("m", seed=2)
    empty_store.publish(*valid)
    with pytest.raises(BundleRejected, match=r"report/loss\.png"):
        empty_store.publish(manifest, {**files, "report/loss.png": b"another"})
    assert empty_store.current("m") == valid[0].version
    assert not (empty_store.root / "m" / manifest.version).exists()


@pytest.mark.parametrize("room", [0, 1, 100, 3000])
def test_full_disk_while_publishing_leaves_the_store_unchanged(empty_store: ModelStore, room: int) -> None:
    """The old version stays current, and nothing of the new one is visible or keeps the disk full."""
    old = empty_store.publish(*make_bundle("m", seed=1))
    before = sorted(path.name for path in old.parent.iterdir())
    with (
        file_size_limit(room),
        pytest.raises(StoreNotWritable, match=r"cannot write to .*/m: File too large; the store is unchanged"),
    ):
        empty_store.publish(*make_bundle("m", seed=2))
    assert empty_store.current("m") == old.name
    assert sorted(path.name for path in old.parent.iterdir()) == before
    with file_size_limit(0), pytest.raises(StoreNotWritable):
        empty_store.activate("m", old.name)
    assert empty_store.current("m") == old.name


def test_full_disk_when_the_new_version_becomes_current_leaves_the_store_unchanged(
    empty_store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = empty_store.publish(*make_bundle("m", seed=1))
    load = ModelStore.load

    def fill_the_disk(store: ModelStore, name: str, version: str) -> object:
        loaded = load(store, name, version)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return loaded

    monkeypatch.setattr(ModelStore, "load", fill_the_disk)
    with file_size_limit(2**30), pytest.raises(StoreNotWritable, match="the store is unchanged"):
        empty_store.publish(*make_bundle("m", seed=2))
    assert empty_store.current("m") == old.name
    assert empty_store.versions("m") == [old.name]
    assert sorted(path.name for path in old.parent.iterdir()) == sorted([".lock", "CURRENT", old.name])


def test_published_files_must_match_the_manifest(empty_store: ModelStore) -> None:
    manifest, files = make_bundle("m")
    with pytest.raises(ValueError, match="must list exactly the files"):
        empty_store.publish(manifest, {**files, "extra": b""})


@pytest.mark.parametrize("operation", ["publish", "activate"])
def test_killed_writers_leave_the_store_consistent(operation: str, tmp_path: Path) -> None:
    process = start("kill_writers", operation, tmp_path / "store", 60, log_folder=tmp_path)
    assert process.wait() == 0, process.log.read_text()
    assert int(process.log.read_text()) == 60


def test_concurrent_publishers(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    for publisher in [start("publish", store.root, 8, log_folder=tmp_path) for _ in range(2)]:
        assert publisher.wait() == 0, publisher.log.read_text()
    versions = sorted(path.name for path in (store.root / "m").iterdir() if path.is_dir())
    assert len(versions) == 16
    for version in versions:
        store.load("m", version)
    assert store.current("m") in versions


class TestActivate:
    @pytest.fixture
    def versions(self, empty_store: ModelStore) -> list[str]:
        return [empty_store.publish(*make_bundle("m", seed=seed)).name for seed in (1, 2)]

    def test_rollback_and_its_undoing(self, empty_store: ModelStore, versions: list[str]) -> None:
        for version in (*versions, versions[1], versions[0]):
            empty_store.activate("m", version)
            assert empty_store.current("m") == version
            assert (empty_store.root / "m" / "CURRENT").read_text() == f"{version}\n"

    def test_version_that_fails_verification_is_not_activated(
        self, empty_store: ModelStore, versions: list[str]
    ) -> None:
        current = empty_store.root / "m" / "CURRENT"
        model = empty_store.root / "m" / versions[0] / "model.pt"
        content = model.read_bytes()
        model.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
        before = current.stat()
        with pytest.raises(BundleRejected, match=rf"^m/{versions[0]}: model\.pt was changed"):
            empty_store.activate("m", versions[0])
        assert current.read_text() == f"{versions[1]}\n"
        assert (current.stat().st_ino, current.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    def test_invalid_or_missing_current_is_replaced(self, empty_store: ModelStore, versions: list[str]) -> None:
        current = empty_store.root / "m" / "CURRENT"
        current.write_text("nonsense")
        empty_store.activate("m", versions[0])
        assert empty_store.current("m") == versions[0]
        current.unlink()
        assert empty_store.names() == []
        assert empty_store.contents() == {"m": sorted(versions)}
        empty_store.activate("m", versions[1])
        assert empty_store.current("m") == versions[1]

    @pytest.mark.parametrize("version", ["", "..", "../m", "CURRENT", ".lock", "20200101T000000Z-000000"])
    def test_unknown_version(self, empty_store: ModelStore, versions: list[str], version: str) -> None:
        with pytest.raises(UnknownVersion, match="m has no version"):
            empty_store.activate("m", version)
        assert empty_store.current("m") == versions[1]

    @pytest.mark.parametrize("name", ["other", "..", "../m", ""])
    def test_unknown_model(self, empty_store: ModelStore, versions: list[str], name: str) -> None:
        with pytest.raises(UnknownModel):
            empty_store.activate(name, versions[0])
        assert sorted(path.name for path in empty_store.root.iterdir()) == ["m"]

    def test_concurrent_publisher(self, empty_store: ModelStore, versions: list[str], tmp_path: Path) -> None:
        """A lock serializes them: every write is complete, and the last one counts."""
        activated = 0
        publisher = start("publish", empty_store.root, 8, log_folder=tmp_path)
        while publisher.poll() is None:
            empty_store.activate("m", versions[activated % 2])
            assert empty_store.current("m") in empty_store.versions("m")
            activated += 1
        assert publisher.returncode == 0, publisher.log.read_text()
        assert activated > 8
        assert len(empty_store.versions("m")) == 10
        empty_store.activate("m", versions[0])
        assert empty_store.current("m") == versions[0]
        assert not [path for path in (empty_store.root / "m").iterdir() if path.name.startswith(".publishing")]


def test_contents_list_published_models_and_versions(empty_store: ModelStore) -> None:
    assert empty_store.contents() == {}
    first, second = (empty_store.publish(*make_bundle("m", seed=seed)).name for seed in (1, 2))
    other = empty_store.publish(*make_bundle("a"))
    empty_store.prepare("nothing-yet")
    (empty_store.root / "notes.txt").write_text("")
    (other.parent / ".publishing-half").mkdir()
    assert empty_store.contents() == {"a": [other.name], "m": sorted([first, second])}
    with pytest.raises(UnknownModel):
        empty_store.versions("../store/m")


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Drops root's privileges, because root ignores file permissions."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


@pytest.fixture
def read_only_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelStore]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(Path(folder))
        store.publish(*make_bundle("m", seed=1))
        folders = [Path(folder), *(path for path in Path(folder).rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o555)
        yield store
        for path in folders:
            path.chmod(0o755)


def test_read_only_store_can_be_read_but_not_written(read_only_store: ModelStore, unprivileged: None) -> None:
    version = read_only_store.current("m")
    read_only_store.load("m", version)
    for name in ("m", "another"):
        with pytest.raises(StoreNotWritable, match="Permission denied; the store is unchanged"):
            read_only_store.publish(*make_bundle(name, seed=2))
        with pytest.raises(StoreNotWritable):
            read_only_store.prepare(name)
    with pytest.raises(StoreNotWritable, match="Permission denied; the store is unchanged"):
        read_only_store.activate("m", version)
    assert read_only_store.current("m") == version


def test_publishing_fails_if_the_store_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreNotWritable, match="the store is unchanged"):
        ModelStore(tmp_path / "store").publish(*make_bundle("m"))
