"""``training.demonstration``: ten models with one command."""

from pathlib import Path

import pytest

from app.inference.bundles.store import ModelStore
from tests.support import make_bundle
from training import demonstration


def test_trains_missing_models_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ModelStore(tmp_path / "store")
    for label in range(8):
        store.publish(*make_bundle(f"digits-{label}"))
    before = {name: store.current(name) for name in store.names()}
    words = ["--data", "digits", "--store", str(store.root), "--data-dir", str(tmp_path / "data"), "--epochs", "1"]
    assert demonstration.main(words) == 0
    assert store.names() == [f"digits-{label}" for label in range(10)]
    assert {name: store.current(name) for name in before} == before
    for label in (8, 9):
        assert store.manifest(f"digits-{label}").data.normal == str(label)
    capsys.readouterr()
    assert demonstration.main(words) == 0
    assert capsys.readouterr().out.splitlines() == [f"digits-{label} already exists" for label in range(10)]


def test_first_failure_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert demonstration.main(["--data", "digits", "--store", str(tmp_path / "file"), "--epochs", "1"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("words", [["--data", "mnits"], ["--more"]])
def test_usage_errors_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        demonstration.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
