import subprocess
import sys
from pathlib import Path

import pytest

from app.api.settings import BadSettings, Settings, read_settings
from app.inference.bundles.signing import SigningKey
from tests.support import ROOT


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("ANOMALY_"):
            monkeypatch.delenv(name)


def test_defaults_are_those_of_the_contract() -> None:
    settings = read_settings()
    assert (settings.max_body_bytes, settings.max_pixels, settings.max_files) == (16 * 2**20, 25_000_000, 64)
    assert (settings.host, settings.port, settings.model) == ("127.0.0.1", 8000, "mnist-5")
    assert settings.model_store == Path("model_store")
    assert settings.api_keys == ()


def test_environment_and_options_say_the_same_and_the_option_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_PORT", "9000")
    monkeypatch.setenv("ANOMALY_MAX_FILES", "7")
    settings = read_settings(["--port", "9001"])
    assert (settings.port, settings.max_files) == (9001, 7)


def test_keys_are_a_comma_list_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_API_KEYS", " alpha, beta ,")
    settings = read_settings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["alpha", "beta"]
    assert "alpha" not in repr(settings)


@pytest.mark.parametrize("prefix", ["", "@"])
def test_keys_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the line\nalpha  # gate 1\n\nbeta,gamma\n")
    monkeypatch.setenv("ANOMALY_API_KEYS", f"{prefix}{file}")
    assert [key.get_secret_value() for key in read_settings().api_keys] == ["alpha", "beta", "gamma"]


def test_a_file_of_keys_that_is_missing_or_empty_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANOMALY_API_KEYS", f"@{tmp_path}/none")
    with pytest.raises(BadSettings, match=r"^ANOMALY_API_KEYS.*cannot be read"):
        read_settings()
    (tmp_path / "empty").write_text("# nothing\n")
    monkeypatch.setenv("ANOMALY_API_KEYS", f"@{tmp_path}/empty")
    with pytest.raises(BadSettings, match=r"^ANOMALY_API_KEYS.*names no key"):
        read_settings()


@pytest.mark.parametrize(("name", "value"), [("API_KEYS", " , "), ("MODEL_STORE", "")])
def test_what_was_set_to_nothing_is_no_wish_for_the_default(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"ANOMALY_{name}", value)
    with pytest.raises(BadSettings, match=f"^ANOMALY_{name}"):
        read_settings()


def test_trusted_keys_are_a_list_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = [SigningKey.generate() for _ in range(2)]
    publics = tuple(key.public for key in keys)
    monkeypatch.setenv("ANOMALY_TRUSTED_KEYS", ", ".join(publics))
    assert read_settings().trusted_keys == publics
    file = tmp_path / "keys.pub"
    file.write_bytes(b"".join(key.public_pem() for key in keys))
    for value in (str(file), f"@{file}"):
        monkeypatch.setenv("ANOMALY_TRUSTED_KEYS", value)
        assert read_settings().trusted_keys == publics
    monkeypatch.setenv("ANOMALY_TRUSTED_KEYS", read_settings().as_environment()["ANOMALY_TRUSTED_KEYS"])
    assert Settings().trusted_keys == publics


def test_what_cannot_be_trusted_stops_the_start_and_is_not_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    private = tmp_path / "private"
    private.write_bytes(SigningKey.generate().to_pem())
    for value in (f"{tmp_path}/none", f"@{tmp_path}/none", "nonsense", ",", str(private), private.read_text()):
        monkeypatch.setenv("ANOMALY_TRUSTED_KEYS", value)
        with pytest.raises(BadSettings, match=r"^ANOMALY_TRUSTED_KEYS: ") as caught:
            read_settings()
        assert "\n" not in str(caught.value)
        assert private.read_text().splitlines()[1] not in str(caught.value)


def test_a_place_where_labels_cannot_be_kept_stops_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANOMALY_FEEDBACK_PATH", str(tmp_path))
    with pytest.raises(BadSettings, match=r"^ANOMALY_FEEDBACK_PATH: .*Is a directory"):
        read_settings()


def test_log_levels_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_LOG_LEVEL", "WARNING")
    assert read_settings().log_level == "warning"


def test_worker_processes_read_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings(
        ["--port", "9001", "--api-keys", "a,b", "--model-store", "x y", "--request-timeout-s", "2.5"]
    )
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "abc"), ("PORT", "70000"), ("MAX_PIXELS", "0"), ("LOG_FORMAT", "xml"), ("LOG_LEVEL", "loud"),
        ("MODEL", "../x"), ("REQUEST_TIMEOUT_S", "0"), ("WORKERS", "0"), ("QUEUE_SIZE", "1"), ("MAX_BATCH", "9999"),
        ("REQUEST_TIMEOUT_S", "inf"), ("TORCH_THREADS", "99999999999"),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"ANOMALY_{name}", value)
    with pytest.raises(BadSettings, match=f"^ANOMALY_{name}.*{value}") as caught:
        read_settings()
    assert "\n" not in str(caught.value)


def test_a_bad_value_stops_the_start() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "--port", "ninety"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: ANOMALY_PORT: Input should be a valid integer, unable to parse string as an integer (it is 'ninety')"
    ]


def test_help_shows_every_option_with_its_default() -> None:
    done = subprocess.run([sys.executable, "-m", "app", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    text = " ".join(done.stdout.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')} " in text
        assert f"(default: {field.default})" in text
