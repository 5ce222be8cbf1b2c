"""The address of a camera, and what of it may be shown."""

import re
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import unquote, urlsplit, urlunsplit

URL_VARIABLE: Final = "ANOMALY_CAMERA_URL"

_HTTP: Final = ("http", "https")
_STREAMS: Final = ("rtsp", "rtsps", "tcp")
_DEVICE: Final = re.compile(r"/dev/video\d+")


@dataclass(frozen=True)
class Address:
    """Where a camera is.

    Attributes:
        url: with user, password and query, or the path of a device; never to be shown.
    """

    url: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parses ``rtsp[s]://``, ``tcp://``, ``http[s]://`` or ``/dev/videoN``; None if it is a folder's name.

        Raises:
            ValueError: it is a URL, but none of a camera; the message does not repeat it.
        """
        if _DEVICE.fullmatch(text):
            return cls(text)
        if "://" not in text:
            return None
        try:
            parts = urlsplit(text)
            usable = parts.scheme in (*_HTTP, *_STREAMS) and parts.hostname and parts.port != 0
        except ValueError:  # the port is no number
            usable = False
        if not usable:
            raise ValueError(
                f"a camera is {', '.join(f'{scheme}://HOST' for scheme in (*_STREAMS, *_HTTP))} or /dev/videoN"
            )
        return cls(text)

    @property
    def is_device(self) -> bool:
        """Whether the camera is attached to this machine."""
        return self.url.startswith("/")

    @property
    def is_http(self) -> bool:
        """Whether it may give single pictures."""
        return urlsplit(self.url).scheme in _HTTP

    @property
    def has_secrets(self) -> bool:
        """Whether others must not see it: a user and a password may also be in the query."""
        parts = urlsplit(self.url)
        return bool(parts.username or parts.password or parts.query)

    @property
    def login(self) -> tuple[str, str] | None:
        """User and password; None without."""
        parts = urlsplit(self.url)
        if parts.username is None:
            return None
        return unquote(parts.username), unquote(parts.password or "")

    @property
    def without_login(self) -> str:
        """The URL without user and password."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    @property
    def shown(self) -> str:
        """For messages: without user, password and query."""
        return urlunsplit(urlsplit(self.without_login)._replace(query="", fragment=""))

    @property
    def name(self) -> str:
        """The name of the host or of the device, as a part of file names."""
        host = urlsplit(self.url).hostname or self.url.rpartition("/")[2]
        return re.sub(r"[^\w.-]", "-", host).strip(".-") or "camera"
