"""The commands for the model store, with published versions and with a running service."""

import json
import re
import time
from pathlib import Path

import pytest

from app.inference.bundles.manifest import Manifest, Scoring
from app.inference.bundles.store import ModelStore
from tests.support import Server, make_bundle, running_server
from training.__main__ import main
from training.model.scoring_rules import SCORING_RULES
from training.run import Published


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """Two models, the first with two versions."""
    store = ModelStore(tmp_path / "a store")
    for seed in (1, 2):
        store.publish(*make_bundle("m", seed=seed, version=f"v{seed}"))
    store.publish(*make_bundle("other", version="v1"))
    return store


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def run(capsys: pytest.CaptureFixture[str], *words: str, store: ModelStore) -> tuple[int, str, str]:
    status = main([*words, "--store", str(store.root)])
    out, err = capsys.readouterr()
    return status, "\n".join(line.rstrip() for line in out.splitlines()), err


class TestList:
    def test_pipe_output_has_one_line_per_version(self, store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, err = run(capsys, "list", store=store)
        assert (status, err) == (0, "")
        lines = [line.split() for line in out.splitlines()[2:]]
        manifest = store.manifest("m", "v1")
        assert [line[:3] for line in lines] == [["m", "●", "v2"], ["m", "v1", f"{manifest.created_at:%Y-%m-%d}"],
                                                ["other", "●", "v1"]]  # fmt: skip
        assert lines[1][-5:] == ["untrained", "mse", f"{manifest.threshold:.6g}", "0.05", "–"]

    @pytest.mark.parametrize("width", [80, 120])
    def test_output_is_complete_at_common_widths(
        self, width: int, trained: Published, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("training.cli.parser._PIPE_WIDTH", width)
        _, out, _ = run(capsys, "list", store=ModelStore(trained.directory.parent.parent))
        manifest = trained.manifest
        assert manifest.evaluation is not None
        assert max(map(len, out.splitlines())) <= width
        assert {"digits-5", manifest.version, "default", "mse", f"{manifest.threshold:.6g}",
                f"{manifest.evaluation.auroc:.4f}", "0.05"} <= set(out.split())  # fmt: skip

    def test_json(self, store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
        store.activate("m", "v1")
        flip_a_bit(store.root / "m" / "v2" / "manifest.json")
        _, out, _ = run(capsys, "list", "--json", store=store)
        second, first, other = json.loads(out)
        assert (second["version"], second["current"]) == ("v2", False)
        assert second["refused"].startswith("m/v2: manifest.json ")
        assert (other["name"], other["current"]) == ("other", True)
        manifest = store.manifest("m")
        assert first == {
            "name": "m",
            "version": "v1",
            "current": True,
            "created_at": manifest.model_dump(mode="json")["created_at"],
            "recipe": "untrained",
            "rule": "mse",
            "threshold": manifest.threshold,
            "false_alarm_rate": 0.05,
            "guarantee": "marginal",
            "auroc": None,
            "bytes": sum(path.stat().st_size for path in (store.root / "m" / "v1").rglob("*.p*")),
        }

    def test_empty_store(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        store = ModelStore(tmp_path)
        assert run(capsys, "list", store=store)[:2] == (
            0, f"{tmp_path} has no models yet; see python -m training --help",
        )  # fmt: skip
        assert run(capsys, "list", "--json", store=store) == (0, "[]", "")
        assert run(capsys, "verify", store=store) == (0, f"{tmp_path} has no models", "")

    def test_refused_versions_are_listed_with_the_reason(
        self, store: ModelStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        flip_a_bit(store.root / "m" / "v1" / "manifest.json")
        (store.root / "other" / "CURRENT").unlink()
        status, out, _ = run(capsys, "list", store=store)
        assert status == 0
        assert re.search(r"^m +v1 +REFUSED$", out, re.MULTILINE)
        assert "\nREFUSED  m/v1: manifest.json " in out
        assert "\nREFUSED  other/CURRENT is missing: no version is served" in out


class TestShow:
    def test_current_version_is_the_default(self, trained: Published, capsys: pytest.CaptureFixture[str]) -> None:
        _, out, _ = run(capsys, "show", "digits-5", store=ModelStore(trained.directory.parent.parent))
        manifest = trained.manifest
        assert manifest.evaluation is not None
        assert out.startswith(f"digits-5 {manifest.version}  current\n")
        text = " ".join(out.split())
        for part in (
            f"{manifest.threshold:.6g}",
            f"{manifest.evaluation.auroc:.4f}",
            manifest.promise,
            f"seed {manifest.training.seed}",
            f"epochs {manifest.training.recipe['epochs']}",
            f"torch {manifest.libraries['torch']}",
            f"{manifest.training.split.fit:,} for training",
        ):
            assert part in text

    def test_other_version_and_json(self, store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
        assert "m v1  not current" in run(capsys, "show", "m", "v1", store=store)[1]
        card = json.loads(run(capsys, "show", "m", "v1", "--json", store=store)[1])
        manifest = store.manifest("m", "v1")
        assert (card["current"], card["version"], card["threshold"]) == (False, "v1", manifest.threshold)
        assert set(card) == {"current", *Manifest.model_fields}
        assert card["calibration"] == {"size": 99, "groups": 99, "folds": None}

    def test_version_with_the_removed_scoring_rule_relative_loads(
        self, store: ModelStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        manifest, files = make_bundle("old", version="v1")
        formula = "mean((x - x̂)²) / max(mean(x²), mean(x̂²), 0.01)"
        store.publish(manifest.model_copy(update={"scoring": Scoring(rule="relative", formula=formula)}), files)
        assert "relative" not in SCORING_RULES
        assert store.load("old", "v1").manifest.scoring.rule == "relative"
        status, out, _ = run(capsys, "show", "old", store=store)
        assert (status, formula in out) == (0, True)

    def test_damaged_manifest_is_refused(self, store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
        flip_a_bit(store.root / "m" / "v1" / "manifest.json")
        status, out, err = run(capsys, "show", "m", "v1", store=store)
        assert (status, out) == (1, "")
        assert err.startswith("error: m/v1: manifest.json ")


class TestActivate:
    def test_activate_prints_the_command_that_undoes_it(
        self, store: ModelStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, out, _ = run(capsys, "activate", "m", "v1", store=store)
        assert status == 0
        assert store.current("m") == "v1"
        assert out == f"m v1 is current\nundo: python -m training activate m v2 --store '{store.root}'"
        assert run(capsys, "activate", "m", "v1", store=store)[1] == "m v1 is already current"

    @pytest.mark.parametrize("file", ["model.pt", "manifest.json", "report/loss.png"])
    def test_damaged_version_is_refused_and_current_does_not_change(
        self, file: str, store: ModelStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        flip_a_bit(store.root / "m" / "v1" / file)
        before = (store.root / "m" / "CURRENT").stat()
        status, out, err = run(capsys, "activate", "m", "v1", store=store)
        assert (status, out) == (1, "")
        assert err.startswith(f"error: m/v1: {file} ")
        assert err.count("\n") == 1
        after = (store.root / "m" / "CURRENT").stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert store.current("m") == "v2"

    def test_running_service_switches_to_the_activated_version(
        self, store: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with running_server(store.root, tmp_path / "log", measure_coverage=False, model="m") as server:
            for version in ("v1", "v2"):
                assert run(capsys, "activate", "m", version, store=store)[0] == 0
                wait_for_version(server, version)
            flip_a_bit(store.root / "m" / "v1" / "model.pt")
            assert run(capsys, "activate", "m", "v1", store=store)[0] == 1
            time.sleep(1.5)  # longer than the service's interval of checking CURRENT
            assert server.client.get("/health").json()["model"]["version"] == "v2"
            assert server.client.get("/health").json()["refused"] == []


def wait_for_version(server: Server, version: str) -> None:
    deadline = time.monotonic() + 60
    while server.client.get("/health").json()["model"]["version"] != version:
        assert time.monotonic() < deadline, f"the service does not serve {version}"
        time.sleep(0.05)


class TestVerify:
    def test_intact_store_passes(self, store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
        everything = "OK       m/v1\nOK       m/v2 ●\nOK       other/v1 ●"
        assert run(capsys, "verify", store=store) == (0, everything, "")
        assert run(capsys, "verify", "other", store=store) == (0, "OK       other/v1 ●", "")
        assert run(capsys, "verify", "m", "v1", store=store) == (0, "OK       m/v1", "")

    @pytest.mark.parametrize("file", ["model.pt", "manifest.json", "report/loss.png"])
    def test_flipped_bit_is_refused(self, file: str, store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
        flip_a_bit(store.root / "m" / "v1" / file)
        status, out, err = run(capsys, "verify", store=store)
        assert status == 1
        refused, *good = sorted(out.splitlines(), reverse=True)
        assert refused.startswith(f"REFUSED  m/v1: {file} ")
        assert good == ["OK       other/v1 ●", "OK       m/v2 ●"]
        assert err == f"error: 1 check of {store.root} failed, see above\n"
        assert run(capsys, "verify", "m", "v1", store=store)[0] == 1
        assert run(capsys, "verify", "m", "v2", store=store)[0] == 0
        assert run(capsys, "verify", "other", store=store)[0] == 0

    @pytest.mark.parametrize(
        ("text", "refusal"),
        [("nonsense\n", "m/CURRENT names a version that is not in the store"), (None, "m/CURRENT is missing")],
    )
    def test_invalid_current_is_refused(
        self, text: str | None, refusal: str, store: ModelStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        current = store.root / "m" / "CURRENT"
        current.unlink() if text is None else current.write_text(text)
        status, out, _ = run(capsys, "verify", store=store)
        assert status == 1
        assert f"REFUSED  {refusal}" in out
        assert "OK       m/v2\n" in out


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("show", "n"), "has no model 'n'"),
            (("show", "othr"), "has no model 'othr'; did you mean 'other'?"),
            (("show", "m", "v11"), "m has no version 'v11'; did you mean 'v1'?"),
            (("activate", "m", "../other/v1"), "m has no version '../other/v1'"),
            (("activate", "../m", "v1"), "has no model '../m'"),
            (("verify", "m", "CURRENT"), "m has no version 'CURRENT'"),
        ],
    )
    def test_unknown_models_and_versions(
        self, words: tuple[str, ...], message: str, store: ModelStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, _, err = run(capsys, *words, store=store)
        assert status == 1
        assert err.startswith("error: ")
        assert message in err
        assert err.count("\n") == 1

    @pytest.mark.parametrize("words", [("list",), ("show", "m"), ("activate", "m", "v1"), ("verify",)])
    def test_missing_store_is_an_error(
        self, words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        store = ModelStore(tmp_path / "nothing")
        assert run(capsys, *words, store=store) == (1, "", f"error: store not found: {store.root}\n")
        assert not store.root.exists()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["show"], "the following arguments are required: NAME"),
            (["activate", "m"], "the following arguments are required: VERSION"),
            (["activate", "m", "v1", "--froce"], "'--froce' is not understood"),
            (["list", "--jsn"], "'--jsn' is not understood; did you mean '--json'?"),
            (["verify", "m", "v1", "v2"], "'v2' is not understood"),
        ],
    )
    def test_usage_errors(self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.endswith(f"(see python -m training {words[0]} --help)\n")
        assert err.count("\n") == 1
