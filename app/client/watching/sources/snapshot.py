"""A camera that gives a picture for each request over HTTP."""

import asyncio
import hashlib
import time
from typing import Final
from urllib.parse import urlsplit

import httpx

from app import __version__
from app.client.watching.sources.address import Address
from app.client.watching.sources.camera import CameraAway, Outage, Picture

_MAX_BYTES: Final = 64 * 2**20
_MAX_REDIRECTS: Final = 5
_REPEAT_S: Final = 0.1  # until a camera is asked again that gave the same picture
_UNAUTHORIZED: Final = 401
_HEADERS: Final = {
    "User-Agent": f"anomaly-watch/{__version__}",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
    "Cache-Control": "no-cache",
}
_STREAMS: Final = ("multipart/x-mixed-replace", "video/", "application/vnd.apple.mpegurl", "application/x-mpegurl")
_SIGNATURES: Final = (  # what a file begins with, a dot stands for any byte
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"BM", ".bmp"),
    (b"GIF8", ".gif"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"RIFF....WEBP", ".webp"),
    (b"....ftypavif", ".avif"),
    (b"\0\0\0\x0cjP  ", ".jp2"),
)


class IsStream(Exception):
    """The address gives a stream and not single pictures."""


class SnapshotCamera:
    """A camera that gives a picture for each GET; see ``Camera``.

    Args:
        address: of the picture. User and password are sent if the camera asks for them (Basic or Digest), and to no
            other host that it redirects to.
        timeout_s: for a picture, with all that is sent for it.
        outage: is told about failures.
    """

    def __init__(self, address: Address, timeout_s: float, outage: Outage) -> None:
        self._url = address.without_login
        self._host = urlsplit(self._url).hostname
        self._login = address.login
        self._auth: httpx.Auth | None = None if self._login is None else httpx.DigestAuth(*self._login)
        self._timeout_s = timeout_s
        self._outage = outage
        self._why = ""
        self._next_try = 0.0
        self._last = b""  # hash of the picture that was returned last
        self._http = httpx.AsyncClient(timeout=timeout_s, headers=_HEADERS)

    async def picture(self, max_age_s: float) -> Picture:  # noqa: ARG002  each is new
        """Asks for a picture; see ``Camera.picture``.

        Raises:
            CameraAway: there is none.
            IsStream: the address is that of a stream.
        """
        if time.monotonic() < self._next_try:
            raise CameraAway(self._why)
        try:
            picture = await self._new_picture()
        except CameraAway as error:
            self._why = str(error)
            self._next_try = time.monotonic() + self._outage.failed(self._why)
            raise
        self._outage.over()
        return picture

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _new_picture(self) -> Picture:
        why = f"no whole picture in {self._timeout_s:g} s"
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    content = await self._get()
                    digest = hashlib.sha256(content).digest()
                    if digest != self._last:
                        break
                    why = f"it has given the same picture for {self._timeout_s:g} s"
                    await asyncio.sleep(_REPEAT_S)
        except TimeoutError:
            raise CameraAway(why) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # their messages may repeat the address
            raise CameraAway(f"no answer ({type(error).__name__})") from None
        suffix = _suffix(content)
        self._last = digest
        return Picture(content, suffix, time.time_ns())

    async def _get(self) -> bytes:
        url = httpx.URL(self._url)
        for _ in range(1 + _MAX_REDIRECTS):
            response = await self._send(url)
            try:
                if response.next_request is None:
                    return await _image(response)
                url = response.next_request.url
            finally:
                await response.aclose()
        raise CameraAway(f"it redirects more than {_MAX_REDIRECTS} times")

    async def _send(self, url: httpx.URL) -> httpx.Response:
        request = self._http.build_request("GET", url)
        if url.host != self._host or (url.scheme == "http" and self._url.startswith("https:")):
            return await self._http.send(request, stream=True)
        response = await self._http.send(request, stream=True, auth=self._auth)
        if response.status_code != _UNAUTHORIZED or self._login is None or isinstance(self._auth, httpx.BasicAuth):
            return response
        if not any(each.lower().startswith("basic") for each in response.headers.get_list("www-authenticate")):
            return response
        await response.aclose()
        self._auth = httpx.BasicAuth(*self._login)
        return await self._http.send(self._http.build_request("GET", url), stream=True, auth=self._auth)


async def _image(response: httpx.Response) -> bytes:
    """The body of a response that is an image.

    Raises:
        CameraAway: it is not, or is too large.
        IsStream: it would never end.
    """
    if not response.is_success:
        refused = ", it refuses user and password" if response.status_code == _UNAUTHORIZED else ""
        raise CameraAway(f"status {response.status_code}{refused}")
    media_type = response.headers.get("Content-Type", "").lower()
    if media_type.startswith(_STREAMS):
        raise IsStream
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > _MAX_BYTES:
            raise CameraAway(f"the answer has more than {_MAX_BYTES // 2**20} MiB")
    _suffix(content)
    return bytes(content)


def _suffix(content: bytes | bytearray) -> str:
    for signature, suffix in _SIGNATURES:
        start = content[: len(signature)]
        if len(start) == len(signature) and all(
            ours in (ord("."), theirs) for ours, theirs in zip(signature, start, strict=True)
        ):
            return suffix
    raise CameraAway("it answers with something that is no image" if content else "it answers with nothing")
