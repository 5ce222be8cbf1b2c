"""Posts entries to a URL, signed as "Standard Webhooks" describe (standardwebhooks.com)."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from dataclasses import asdict
from typing import Final

import httpx

from app import __version__
from app.client.watching.deliveries import NotDelivered, Refused
from app.client.watching.journal import Entry

SECRET_VARIABLE: Final = "ANOMALY_WEBHOOK_SECRET"  # noqa: S105  its name, not its value
TYPE: Final = "anomaly.verdict"

_PREFIX: Final = "whsec_"
_TIMEOUT_S: Final = 15.0
_REFUSALS: Final = {400, 410, 413, 415, 422}  # of this entry, not of all; sent again, it would hold up the others


class Webhook:
    """A receiver at a URL.

    Each request has the headers ``webhook-id`` (the entry's id, the same when it is sent again),
    ``webhook-timestamp`` (seconds since 1970) and ``webhook-signature`` (``v1,`` and the base64 of HMAC-SHA-256 over
    ``id.timestamp.body``). Any status from 200 to 299 accepts the entry.

    Args:
        url: http or https.
        secret: as text, or as base64 after ``whsec_``.
        timeout_s: until a receiver that does not answer is asked again.
    """

    def __init__(self, url: str, secret: str, timeout_s: float = _TIMEOUT_S) -> None:
        self._url = url
        self._key = key_of(secret)
        self._http = httpx.AsyncClient(timeout=timeout_s, headers={"User-Agent": f"anomaly-watch/{__version__}"})

    async def send(self, entry: Entry) -> None:
        """Posts an entry; see ``Receiver.send``."""
        body = json.dumps({"type": TYPE, "timestamp": entry.time, "data": asdict(entry)}).encode()
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": entry.id,
            "webhook-timestamp": timestamp,
            "webhook-signature": sign(self._key, entry.id, timestamp, body),
        }
        try:
            response = await self._http.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise NotDelivered(f"no answer ({type(error).__name__})") from error
        if response.status_code in _REFUSALS:
            raise Refused(f"status {response.status_code}")
        if not response.is_success:
            raise NotDelivered(f"status {response.status_code}")

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()


def key_of(secret: str) -> bytes:
    """The key of a secret.

    Raises:
        ValueError: it is empty, or not base64 after ``whsec_``.
    """
    if not secret:
        raise ValueError("the secret is empty")
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"the secret is not base64 after {_PREFIX}") from error


def sign(key: bytes, id: str, timestamp: str, body: bytes) -> str:  # noqa: A002  name of the standard
    """The signature of a request, for its header."""
    signed = b".".join([id.encode(), timestamp.encode(), body])
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
