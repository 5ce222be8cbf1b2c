"""Settings from the environment and the command line."""

import os
from pathlib import Path

import pytest
import torch

from app.api.settings import BadSettings, Settings, read_settings
from app.inference.bundles.signing import SigningKey
from tests.support import run_app


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ANOMALY_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "value",
    ["/run/secrets/keys", "keys.txt", "./keys", "../keys", "~/keys", "secrets.yaml", "C:\\keys", "app/no-such-file"],
)
def test_api_keys_that_look_like_a_missing_file_stop_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The path itself would become the key."""
    monkeypatch.setenv("ANOMALY_API_KEYS", value)
    with pytest.raises(BadSettings, match=r"^ANOMALY_API_KEYS: file not found; to use this value as a key") as caught:
        read_settings()
    assert value not in str(caught.value)
    monkeypatch.setenv("ANOMALY_API_KEYS", f"{value},")
    assert [key.get_secret_value() for key in read_settings().api_keys] == [value]


@pytest.mark.parametrize("key", ["mZ3/fE+x9k==", "sk-live-4f9a", "a1b2c3", "x_y-z.w"])
def test_usual_keys_do_not_look_like_files(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("ANOMALY_API_KEYS", key)
    assert [each.get_secret_value() for each in read_settings().api_keys] == [key]


def test_key_from_a_file_that_looks_like_a_path_reaches_the_workers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("/Zm9v.key\n")
    monkeypatch.setenv("ANOMALY_API_KEYS", str(tmp_path / "keys"))
    settings = read_settings()
    monkeypatch.setenv("ANOMALY_API_KEYS", settings.as_environment()["ANOMALY_API_KEYS"])
    assert Settings() == settings


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ANOMALY_API_KEYZ", "; did you mean 'ANOMALY_API_KEYS'?"),
        ("ANOMALY_APIKEYS", "; did you mean 'ANOMALY_API_KEYS'?"),
        ("anomaly_max_file", "; did you mean 'ANOMALY_MAX_FILES'?"),
        ("ANOMALY_TRUSTED_KEY", "; did you mean 'ANOMALY_TRUSTED_KEYS'?"),
        ("ANOMALY_QQQQ", " of the service"),
    ],
)
def test_unknown_variable_stops_the_start_with_a_suggestion(
    monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    monkeypatch.setenv(name, "secret")
    with pytest.raises(BadSettings) as caught:
        read_settings([])
    assert str(caught.value) == f"{name} is not a setting{hint}"


def test_variables_that_other_programs_read_or_set_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UID", "GID", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "WEB_PORT_80_TCP_ADDR"):
        monkeypatch.setenv(f"ANOMALY_{name}", "1")
    monkeypatch.setenv("ANOMALY_WEB_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("anomaly_max_files", "7")
    assert read_settings().max_files == 7


def test_key_of_the_client_alone_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was meant for the service, which would be open to everybody."""
    monkeypatch.setenv("ANOMALY_API_KEY", "alpha")
    with pytest.raises(BadSettings, match=r"^ANOMALY_API_KEY is the key that the client sends.*set ANOMALY_API_KEYS"):
        read_settings()
    monkeypatch.setenv("ANOMALY_API_KEYS", "alpha")
    read_settings()


def test_documented_defaults() -> None:
    settings = read_settings()
    assert (settings.max_body_bytes, settings.max_pixels, settings.max_files) == (16 * 2**20, 25_000_000, 64)
    assert (settings.host, settings.port, settings.model) == ("127.0.0.1", 8000, "mnist-5")
    assert settings.model_store == Path("model_store")
    assert settings.api_keys == ()


def test_options_take_precedence_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_PORT", "9000")
    monkeypatch.setenv("ANOMALY_MAX_FILES", "7")
    settings = read_settings(["--port", "9001"])
    assert (settings.port, settings.max_files) == (9001, 7)


def test_api_keys_are_comma_separated_and_hidden_in_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_API_KEYS", " alpha, beta ,")
    settings = read_settings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["alpha", "beta"]
    assert "alpha" not in repr(settings)


@pytest.mark.parametrize("prefix", ["", "@"])
def test_api_keys_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "keys"
    file.write_text("# comment\nalpha  # gate 1\n\nbeta,gamma\n")
    monkeypatch.setenv("ANOMALY_API_KEYS", f"{prefix}{file}")
    assert [key.get_secret_value() for key in read_settings().api_keys] == ["alpha", "beta", "gamma"]


def test_missing_or_empty_api_key_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANOMALY_API_KEYS", f"@{tmp_path}/missing")
    with pytest.raises(BadSettings, match=r"^ANOMALY_API_KEYS.*cannot be read"):
        read_settings()
    (tmp_path / "empty").write_text("# no key\n")
    monkeypatch.setenv("ANOMALY_API_KEYS", f"@{tmp_path}/empty")
    with pytest.raises(BadSettings, match=r"^ANOMALY_API_KEYS.*contains no key"):
        read_settings()


@pytest.mark.parametrize(("name", "value"), [("API_KEYS", " , "), ("MODEL_STORE", "")])
def test_empty_value_is_refused_instead_of_using_the_default(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"ANOMALY_{name}", value)
    with pytest.raises(BadSettings, match=f"^ANOMALY_{name}"):
        read_settings()


def test_trusted_keys_from_a_list_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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


def test_invalid_trusted_keys_are_refused_without_quoting_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_bytes(SigningKey.generate().to_pem())
    for value in (f"{tmp_path}/missing", f"@{tmp_path}/missing", "nonsense", ",", str(private), private.read_text()):
        monkeypatch.setenv("ANOMALY_TRUSTED_KEYS", value)
        with pytest.raises(BadSettings, match=r"^ANOMALY_TRUSTED_KEYS: ") as caught:
            read_settings()
        assert "\n" not in str(caught.value)
        assert private.read_text().splitlines()[1] not in str(caught.value)


def test_validating_feedback_path_creates_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "labels.jsonl", tmp_path / "new folder" / "labels.jsonl"):
        assert Settings(feedback_path=str(path)).feedback_path == str(path)
    assert list(tmp_path.iterdir()) == []


def ordinary_user_access(path: str | Path, mode: int) -> bool:
    """``os.access`` for the owner without the rights of root, whom permission bits do not stop."""
    return Path(path).stat().st_mode & (mode << 6) == mode << 6


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (".", "Is a directory"),
        ("file/labels.jsonl", "Not a directory"),
        ("read-only/labels.jsonl", "Permission denied"),
        ("read-only/new folder/labels.jsonl", "Permission denied"),
    ],
)
def test_unusable_feedback_path_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, reason: str
) -> None:
    monkeypatch.setattr(os, "access", ordinary_user_access)
    (tmp_path / "file").touch()
    (tmp_path / "read-only").mkdir(mode=0o500)
    monkeypatch.setenv("ANOMALY_FEEDBACK_PATH", str(tmp_path / path))
    with pytest.raises(BadSettings, match=f"^ANOMALY_FEEDBACK_PATH: .*{reason}") as caught:
        read_settings()
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "read-only").iterdir()) == []


def test_label_secret_of_the_wrong_size_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "labels.key").write_bytes(b"too short")
    status, printed = run_app(tmp_path / "log", "--feedback-path", str(tmp_path / "labels"), "--port", "0")
    assert status == 2
    (line,) = printed.splitlines()
    assert line.startswith("error: ANOMALY_FEEDBACK_PATH: ")
    assert "must hold a secret of 32 bytes" in line


def test_log_level_in_upper_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_LOG_LEVEL", "WARNING")
    assert read_settings().log_level == "warning"


def test_environment_of_worker_processes_has_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    options = "--port 9001 --api-keys a,b --cors-origins http://a:1,https://b --request-timeout-s 2.5"
    settings = read_settings([*options.split(), "--model-store", "x y"])
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "abc"), ("PORT", "70000"), ("MAX_PIXELS", "0"), ("LOG_FORMAT", "xml"), ("LOG_LEVEL", "loud"),
        ("MODEL", "../x"), ("REQUEST_TIMEOUT_S", "0"), ("WORKERS", "0"), ("QUEUE_SIZE", "1"), ("MAX_BATCH", "9999"),
        ("REQUEST_TIMEOUT_S", "inf"), ("TORCH_THREADS", "99999999999"), ("CORS_ORIGINS", "example.com"),
        ("CORS_ORIGINS", "https://example.com/"), ("CORS_ORIGINS", "https://Example.com"), ("DEVICE", "gpu"),
    ],
)  # fmt: skip
def test_invalid_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"ANOMALY_{name}", value)
    with pytest.raises(BadSettings, match=f"^ANOMALY_{name}.*{value}") as caught:
        read_settings()
    assert "\n" not in str(caught.value)


def test_invalid_option_stops_the_start(tmp_path: Path) -> None:
    status, printed = run_app(tmp_path / "log", "--port", "ninety")
    assert status == 2
    assert printed.splitlines() == [
        "error: ANOMALY_PORT: Input should be a valid integer, unable to parse string as an integer (got 'ninety')"
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics processor")
def test_missing_graphics_processor_stops_the_start(tmp_path: Path) -> None:
    status, printed = run_app(tmp_path / "log", "--device", "cuda")
    assert status == 2
    assert printed.startswith("error: ANOMALY_DEVICE: there is no cuda: torch finds 0 graphics processors")


def test_help_lists_every_option_with_its_default(tmp_path: Path) -> None:
    status, printed = run_app(tmp_path / "log", "--help")
    assert status == 0
    text = " ".join(printed.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')} " in text
        assert f"(default: {field.default})" in text
