"""``watch --mqtt``: a real broker, which is restarted meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("paho.mqtt", reason="the extra `mqtt` is not installed")

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from app.client.watching import command, deliveries, mqtt
from app.client.watching.broker import PASSWORD_VARIABLE, Broker
from tests.client.conftest import Digits
from tests.client.watching.conftest import Watch, journal, running, wait_until
from tests.support import free_port

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def broker(port: int) -> Iterator[None]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    process = subprocess.Popen([MOSQUITTO, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


class Subscriber:
    """Receives everything below a topic; connects again by itself."""

    def __init__(self, port: int, topic: str) -> None:
        self.messages: list[tuple[str, int, Any]] = []
        self.subscribed = threading.Event()
        self._topic = topic
        self._client = client = Client(CallbackAPIVersion.VERSION2)
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: self.subscribed.set()
        client.on_disconnect = lambda *_: self.subscribed.clear()
        client.on_message = self._on_message
        client.reconnect_delay_set(1, 1)
        client.connect_async("127.0.0.1", port)
        client.loop_start()

    def _on_connect(self, client: Client, *_: object) -> None:
        client.subscribe(f"{self._topic}/#", qos=1)

    def _on_message(self, _: Client, __: object, message: MQTTMessage) -> None:
        self.messages.append((message.topic, message.qos, message.payload.decode()))

    def __enter__(self) -> "Subscriber":
        assert self.subscribed.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(text) for topic, _, text in [*self.messages] if not topic.endswith("/status")]

    def statuses(self) -> list[str]:
        return [text for topic, _, text in [*self.messages] if topic.endswith("/status")]


def test_anomalies_are_published_with_qos_1(watch: Watch, archive: Path) -> None:
    port = free_port()
    with broker(port), Subscriber(port, "line/2") as subscriber:
        assert watch("--mqtt", f"mqtt://127.0.0.1:{port}/line/2") == 0
        wait_until(lambda: subscriber.statuses()[-1:] == ["offline"])
    (entry,) = subscriber.entries()
    assert entry == next(line for line in journal(archive) if line["verdict"] == "anomaly")
    assert {qos for _, qos, _ in subscriber.messages} == {1}
    assert subscriber.statuses() == ["online", "offline"]


def test_broker_tells_when_the_watcher_dies(url: str, incoming: Path, archive: Path) -> None:
    port = free_port()
    words = [incoming, "--archive", archive, "--url", url, "--mqtt", f"mqtt://127.0.0.1:{port}/a", "--poll", 0.2]
    with broker(port), Subscriber(port, "a") as subscriber, running(*words, status=-signal.SIGKILL) as watcher:
        wait_until(lambda: len(subscriber.entries()) == 1)
        watcher.send_signal(signal.SIGKILL)
        wait_until(lambda: subscriber.statuses() == ["online", "offline"])


def test_broker_and_watcher_restart(
    watch: Watch, archive: Path, incoming: Path, digit_files: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run could not publish is published by the next; what was acknowledged is not published again."""
    monkeypatch.setattr(deliveries, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(mqtt, "_WAIT_S", 0.2)
    port = free_port()
    words = ("--mqtt", f"mqtt://127.0.0.1:{port}/a", "--on", "all")
    with broker(port):
        assert watch(*words) == 0
    with monkeypatch.context() as patch:
        patch.setattr(command, "_deliver_rest", at_once)
        (incoming / "next.png").write_bytes(digit_files[5][2])
        assert watch(*words) == 0
    (incoming / "last.png").write_bytes(digit_files[5][3])
    with broker(port), Subscriber(port, "a") as subscriber:
        assert watch(*words) == 0
        wait_until(lambda: subscriber.statuses()[-1:] == ["offline"])
    assert subscriber.entries() == [line for line in journal(archive) if line["file"] in {"next.png", "last.png"}]


async def at_once(*_: object) -> None:
    """Ends without waiting for the broker."""


def test_broker_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    plain, full = Broker.parse("mqtt://host/a/b"), Broker.parse("mqtts://me:p%40ss@host:99/a")
    assert (plain.host, plain.port, plain.tls, plain.topic, plain.user) == ("host", 1883, False, "a/b", None)
    assert (full.port, full.tls, full.user, full.password) == (99, True, "me", "p@ss")
    assert "p@ss" not in repr(full)
    monkeypatch.setenv(PASSWORD_VARIABLE, "from the environment")
    assert Broker.parse("mqtt://me@host/a").password == "from the environment"


@pytest.mark.parametrize(
    "address", ["host/a", "http://host/a", "mqtt://host", "mqtt://host/", "mqtt:///a", "mqtt://h/a/#"]
)
def test_unusable_broker_address_is_wrong_usage(watch: Watch, capsys: pytest.CaptureFixture[str], address: str) -> None:
    with pytest.raises(SystemExit):
        watch("--mqtt", address)
    assert "is not mqtt://host/topic" in capsys.readouterr().err
