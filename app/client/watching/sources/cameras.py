"""Opens the camera at an address."""

from importlib.util import find_spec
from typing import Final

from app.client.watching.sources.address import Address
from app.client.watching.sources.camera import Camera, CameraAway, Outage, Picture
from app.client.watching.sources.snapshot import IsStream, SnapshotCamera
from app.client.watching.sources.stream import StreamCamera

STREAMS_MISSING: Final = "PyAV is not installed; run: pip install av"


def can_stream() -> bool:
    """Whether streams can be read: the extra ``camera`` is installed."""
    return find_spec("av") is not None


def open_camera(address: Address, timeout_s: float, outage: Outage) -> Camera:
    """The camera at an address. It need not be there yet.

    Args:
        address: of the camera.
        timeout_s: how long it may give no picture before it counts as away.
        outage: is told when it is away.
    """
    kind = HttpCamera if address.is_http else StreamCamera
    return kind(address, timeout_s, outage)


class HttpCamera:
    """Single pictures or a stream, as the first answer of the camera says; see ``Camera``."""

    def __init__(self, address: Address, timeout_s: float, outage: Outage) -> None:
        self._arguments = address, timeout_s, outage
        self._camera: Camera = SnapshotCamera(*self._arguments)

    async def picture(self, max_age_s: float) -> Picture:
        """See ``Camera.picture``."""
        try:
            return await self._camera.picture(max_age_s)
        except IsStream:
            if not can_stream():
                raise CameraAway(STREAMS_MISSING) from None
            await self._camera.aclose()
            self._camera = StreamCamera(*self._arguments)
            return await self._camera.picture(max_age_s)

    async def aclose(self) -> None:
        """See ``Camera.aclose``."""
        await self._camera.aclose()
