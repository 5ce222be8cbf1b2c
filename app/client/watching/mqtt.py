"""Publishes entries to an MQTT broker: quality of service 1, and a last will."""

import asyncio
import json
import threading
from dataclasses import asdict
from typing import Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from app.client.watching.broker import Broker
from app.client.watching.deliveries import NotDelivered
from app.client.watching.journal import Entry

_KEEP_ALIVE_S: Final = 30
_WAIT_S: Final = 10.0


class Mqtt:
    """A broker as a receiver. Connects in the background, again and again."""

    def __init__(self, broker: Broker) -> None:
        self._topic = broker.topic
        self._why = "not connected yet"
        self._connected = threading.Event()
        self._pending: tuple[str, MQTTMessageInfo] | None = None
        self._client = client = Client(CallbackAPIVersion.VERSION2)
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            client.tls_set()
        client.will_set(self._status, "offline", qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.connect_async(broker.host, broker.port, _KEEP_ALIVE_S)
        client.loop_start()

    @property
    def _status(self) -> str:
        return f"{self._topic}/status"

    async def send(self, entry: Entry) -> None:
        """Publishes an entry, and returns when the broker has acknowledged it; see ``Receiver.send``."""
        await asyncio.to_thread(self._send, entry)

    def _send(self, entry: Entry) -> None:
        if self._pending is None or self._pending[0] != entry.id:
            if not self._connected.wait(_WAIT_S):
                raise NotDelivered(self._why)
            self._pending = entry.id, self._client.publish(self._topic, json.dumps(asdict(entry)), qos=1)
        # The library itself sends it again after a new connection, so it is published once.
        info = self._pending[1]
        info.wait_for_publish(_WAIT_S)
        if not info.is_published():
            raise NotDelivered("no acknowledgement")

    async def aclose(self) -> None:
        """Says ``offline`` and disconnects."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._connected.is_set():
            self._client.publish(self._status, "offline", qos=1, retain=True).wait_for_publish(_WAIT_S)
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: Client, _: object, __: ConnectFlags, reason: ReasonCode, ___: Properties | None
    ) -> None:
        if reason.is_failure:
            self._why = f"the broker refuses the connection: {reason}"
            return
        client.publish(self._status, "online", qos=1, retain=True)
        self._connected.set()

    def _on_disconnect(
        self, _: Client, __: object, ___: DisconnectFlags, reason: ReasonCode, ____: Properties | None
    ) -> None:
        self._connected.clear()
        if reason.is_failure and not self._why.startswith("the broker"):
            self._why = f"the connection was lost: {reason}"
