"""``watch --webhook``: a receiver that fails, hangs and restarts gets every entry, and none twice that it accepted."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.client.watching import command, deliveries
from app.client.watching.webhook import SECRET_VARIABLE, Webhook, key_of
from tests.client.conftest import Digits
from tests.client.watching.conftest import Watch, journal
from tests.support import free_port

SECRET = "whsec_" + base64.b64encode(b"a key of the receiver").decode()


class Receiver(ThreadingHTTPServer):
    """Answers as listed in ``answers``, then with 204; None: never."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers: list[int | None] = []
        self.received: list[tuple[str, int | None, dict[str, Any]]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"

    @property
    def accepted(self) -> list[str]:
        return [entry["id"] for _, answer, entry in self.received if answer == 204]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        verify(dict(self.headers), body)
        answer = self.server.answers.pop(0) if self.server.answers else 204
        self.server.received.append((self.headers["webhook-id"], answer, json.loads(body)["data"]))
        if answer is None:
            self.server.released.wait()
            return
        self.send_response(answer)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


def verify(headers: dict[str, str], body: bytes) -> None:
    """What a receiver does, by the published rules."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(b"a key of the receiver", signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 300
    assert json.loads(body)["type"] == "anomaly.verdict"


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    with Receiver(port) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.01,))
        thread.start()
        yield receiver
        receiver.released.set()
        receiver.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    monkeypatch.setattr(deliveries, "_FIRST_PAUSE_S", 0.01)


def test_anomalies_are_posted_signed(watch: Watch, archive: Path, incoming: Path) -> None:
    (incoming / "broken.png").write_bytes(b"no image")
    with receiving() as receiver:
        assert watch("--webhook", receiver.url) == 0
        assert watch("--webhook", receiver.url) == 0  # nothing new
    lines = {line["id"]: line for line in journal(archive)}
    assert sorted(receiver.accepted) == sorted(each for each, line in lines.items() if line["verdict"] != "normal")
    assert all(lines[each] == entry for each, _, entry in receiver.received)


def test_all_are_posted_in_order_to_a_receiver_that_fails_and_hangs(
    watch: Watch, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Webhook.__init__
    monkeypatch.setattr(Webhook, "__init__", lambda self, url, secret: original(self, url, secret, timeout_s=0.3))
    with receiving() as receiver:
        receiver.answers = [500, 503, None, 404, 302]
        assert watch("--webhook", receiver.url, "--on", "all") == 0
    assert receiver.accepted == [line["id"] for line in journal(archive)]
    first = receiver.received[0][0]
    assert [each for each, _, _ in receiver.received[:6]] == [first] * 6  # the same id each time


def test_entry_that_is_refused_holds_up_no_other(
    watch: Watch, archive: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with receiving() as receiver:
        receiver.answers = [422]
        assert watch("--webhook", receiver.url, "--on", "all") == 0
    assert receiver.accepted == [line["id"] for line in journal(archive)[1:]]
    assert "was refused: status 422" in capfd.readouterr().err


def test_receiver_and_watcher_restart(
    watch: Watch, archive: Path, incoming: Path, digit_files: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher ends while the receiver is away; the next run delivers what the first could not."""
    port = free_port()
    words = ["--webhook", f"http://127.0.0.1:{port}/hook", "--on", "all"]
    with monkeypatch.context() as patch:
        patch.setattr(command, "_deliver_rest", _at_once)
        with receiving(port) as receiver:
            assert watch(*words) == 0
            before = receiver.accepted
        (incoming / "next.png").write_bytes(digit_files[5][2])
        assert watch(*words) == 0
    (incoming / "last.png").write_bytes(digit_files[5][3])
    with receiving(port) as receiver:
        assert watch(*words) == 0
    ids = [line["id"] for line in journal(archive)]
    assert len(ids) == 4
    assert before + receiver.accepted == ids  # an entry that was being sent at the end of a run got its answer


async def _at_once(*_: object) -> None:
    """Ends without waiting for the receiver."""


def test_entries_of_before_the_first_run_are_no_news(watch: Watch, incoming: Path, digit_files: Digits) -> None:
    assert watch() == 0
    (incoming / "next.png").write_bytes(digit_files[5][2])
    with receiving() as receiver:
        assert watch("--webhook", receiver.url, "--on", "all") == 0
    assert [entry["file"] for _, _, entry in receiver.received] == ["next.png"]


@pytest.mark.parametrize("secret", ["", "whsec_no base64"])
def test_webhook_needs_a_secret(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], secret: str
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, secret)
    with pytest.raises(SystemExit):
        watch("--webhook", "http://127.0.0.1/")
    assert f"--webhook needs {SECRET_VARIABLE}" in capsys.readouterr().err


def test_secret_is_text_or_base64() -> None:
    assert key_of(SECRET) == b"a key of the receiver"
    assert key_of("plain text") == b"plain text"
