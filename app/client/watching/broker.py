"""The address of an MQTT broker."""

import os
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import unquote, urlsplit

PASSWORD_VARIABLE: Final = "ANOMALY_MQTT_PASSWORD"  # noqa: S105  its name, not its value

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class Broker:
    """Where to publish.

    Attributes:
        topic: of entries; ``topic/status`` says ``online`` or ``offline``, retained.
    """

    host: str
    port: int
    tls: bool
    topic: str
    user: str | None
    password: str | None = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parses ``mqtt[s]://[user[:password]@]host[:port]/topic``.

        Raises:
            ValueError: it is not such a URL, or the topic has a wildcard.
        """
        parts = urlsplit(url)
        topic = unquote(parts.path).strip("/")
        if parts.scheme not in _PORTS or not parts.hostname or not topic or set(topic) & set("+#\0") or "#" in url:
            raise ValueError(f"{url!r} is not mqtt://host/topic or mqtts://host/topic")
        return cls(
            host=parts.hostname,
            port=parts.port or _PORTS[parts.scheme],
            tls=parts.scheme == "mqtts",
            topic=topic,
            user=None if parts.username is None else unquote(parts.username),
            password=os.environ.get(PASSWORD_VARIABLE) or (parts.password and unquote(parts.password)),
        )
