"""Mistakes at the start of the service: each is one line with its remedy."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.__main__ import _warn_if_open, main
from app.api import workers as processes
from app.api.http.listening import require_free
from app.api.settings import BadSettings, read_settings
from tests.support import ROOT, WITHOUT_COVERAGE, free_port, run_app, running_server


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


class TestPort:
    @pytest.mark.parametrize(("host", "workers"), [("127.0.0.1", "1"), ("0.0.0.0", "2")])
    def test_port_in_use_is_one_line_with_the_remedy(
        self, used_port: int, host: str, workers: str, tmp_path: Path
    ) -> None:
        options = ("--host", host, "--port", str(used_port), "--workers", workers)
        status, printed = run_app(tmp_path / "log", *options)
        assert status == 2
        (line,) = printed.splitlines()
        assert line.startswith(f"error: ANOMALY_PORT: port {used_port} of {host} is in use; ")
        assert f"PORT={used_port + 1} make serve" in line
        assert f"ANOMALY_PORT={used_port + 1}" in line

    @pytest.mark.parametrize(
        ("host", "port", "reason"),
        [
            ("192.0.2.1", 0, r"^ANOMALY_HOST: the service cannot listen on port 0 of 192\.0\.2\.1: "),
            ("no host", 0, "^ANOMALY_HOST: 'no host' is not an address: "),
            ("x" * 70, 0, "^ANOMALY_HOST: 'x+' is not an address: "),
        ],
    )
    def test_unusable_address_is_one_line_that_names_the_setting(self, host: str, port: int, reason: str) -> None:
        with pytest.raises(BadSettings, match=reason) as refused:
            require_free(host, port)
        assert "\n" not in str(refused.value)

    def test_privileged_port_names_the_port(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Root may listen on every port."""

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("app.api.http.listening._bind", refuse)
        with pytest.raises(BadSettings, match=r"^ANOMALY_PORT: .*port 80 of 127\.0\.0\.1: Permission denied"):
            require_free("127.0.0.1", 80)

    def test_port_in_use_under_another_name(self, used_port: int) -> None:
        with pytest.raises(BadSettings, match=f"port {used_port} of localhost is in use"):
            require_free("localhost", used_port)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::"])
    def test_free_port_is_not_reserved(self, host: str) -> None:
        if host == "::" and not socket.has_dualstack_ipv6():
            pytest.skip("no IPv6")
        port = free_port()
        require_free(host, port)
        require_free(host, port)


def test_without_decode_processes_the_service_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["app", "--port", str(free_port())])
    monkeypatch.setattr(sys, "executable", "/missing/python")
    assert main() == 2
    assert capsys.readouterr().err == ("error: no process to decode images can be started: No such file or directory\n")


def errors_in(log: Path) -> list[str]:
    return [line["event"] for line in map(json.loads, log.read_text().splitlines()) if line["level"] == "error"]


class TestOpenService:
    @pytest.mark.parametrize(
        ("host", "keys", "warnings"),
        [("0.0.0.0", "", 1), ("0.0.0.0", "alpha", 0), ("127.0.0.1", "", 0), ("localhost", "", 0)],
    )
    def test_open_to_other_machines_without_keys_is_one_warning(self, host: str, keys: str, warnings: int) -> None:
        settings = read_settings(["--host", host, *(["--api-keys", keys] if keys else [])])
        with capture_logs() as logged:
            _warn_if_open(settings)
        assert [line["log_level"] for line in logged] == ["warning"] * warnings

    def test_open_service_logs_the_warning_when_it_starts(self, store: Path, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with running_server(store, log, ready=False, model="digits-5", host="0.0.0.0", log_format="json"):
            pass
        lines = map(json.loads, log.read_text().splitlines())
        events = [line["event"].partition(" port")[0] for line in lines if line["level"] == "warning"]
        assert events == ["ANOMALY_API_KEYS: everybody who reaches"]


class TestModel:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_missing_model_is_one_line_with_what_the_store_has(self, store: Path, tmp_path: Path, workers: int) -> None:
        log = tmp_path / "log"
        with running_server(store, log, ready=False, model="digit-5", workers=workers, log_format="json") as server:
            assert server.wait_for("/health", 503).json()["status"] == "unavailable"
        assert errors_in(log) == [
            f"ANOMALY_MODEL: the model store {store} has no model 'digit-5'; did you mean 'digits-5'? "
            "It has colour, digits-5"
        ]

    def test_missing_store_names_its_setting(self, tmp_path: Path) -> None:
        log, store = tmp_path / "log", tmp_path / "stoer"
        with running_server(store, log, ready=False, model="digits-5", log_format="json"):
            pass
        assert errors_in(log) == [f"ANOMALY_MODEL_STORE: there is no model store {store}, so no model 'digits-5'"]

    def test_existing_model_has_no_such_line(self, store: Path, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with running_server(store, log, model="digits-5", log_format="json"):
            pass
        assert errors_in(log) == []


class TestWorkers:
    def test_more_than_fit_into_memory_are_one_line(self) -> None:
        processes.require_memory(6, 2 * 10**9)
        with pytest.raises(BadSettings) as refused:
            processes.require_memory(100, 2 * 10**9)
        assert str(refused.value) == (
            "ANOMALY_WORKERS: 100 workers take about 30.0 GB, and there are 2.0 GB of memory: at most 6"
        )
        processes.require_memory(1, 10**8)  # one must start whatever there is


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--prot", "9000"), "'--prot' is not understood; did you mean '--port'?"),
            (("--max_files=3",), "'--max_files=3' is not understood; did you mean '--max-files'?"),
            (("--zzz",), "'--zzz' is not understood"),
            (("serve",), "'serve' is not understood"),
            (("--port",), "argument --port: expected one argument"),
        ],
    )
    def test_misspelt_option_is_one_line_with_a_suggestion(
        self, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            read_settings([*options])
        assert ended.value.code == 2
        assert capsys.readouterr().err == f"error: {message} (see python -m app --help)\n"

    def test_misspelt_option_stops_the_start(self) -> None:
        """With a new Python process; the other tests fork one."""
        done = subprocess.run(
            [sys.executable, "-m", "app", "--prot", "9000"],
            cwd=ROOT, env=WITHOUT_COVERAGE, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "error: '--prot' is not understood; did you mean '--port'? (see python -m app --help)\n"


def test_make_serve_passes_the_port_on() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "-n", "serve", "PORT=8001"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert '-m app  --port "8001"' in done.stdout
