"""What all cameras have in common: pictures, and how an outage is waited for and told."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

_FIRST_PAUSE_S: Final = 1.0  # before a camera that is away is asked again; doubles
_LONGEST_PAUSE_S: Final = 10.0  # so that a camera that is back is noticed soon


class CameraAway(Exception):
    """The camera gives no picture; the message gives the reason, without the camera's name or address."""


@dataclass(frozen=True)
class Picture:
    """An image file from a camera.

    Attributes:
        content: the file.
        suffix: of its format, with the dot.
        time_ns: when it was received, in nanoseconds since 1970.
    """

    content: bytes
    suffix: str
    time_ns: int


class Camera(Protocol):
    """A camera, which is connected again whenever it was away."""

    async def picture(self, max_age_s: float) -> Picture:
        """The newest picture; none is returned twice.

        Only one picture may be asked for at a time.

        Args:
            max_age_s: how long ago it may have been received; 0: it is received after the call.

        Raises:
            CameraAway: there is none.
        """

    async def aclose(self) -> None:
        """Closes the connection."""


class Outage:
    """Says once that a camera is away, or away for another reason, and that it is back.

    Args:
        name: of the camera.
        tell: prints a line.
    """

    def __init__(self, name: str, tell: Callable[[str], None]) -> None:
        self._name = name
        self._tell = tell
        self._told: set[str] = set()
        self._pause_s = _FIRST_PAUSE_S
        self._up_since: float | None = None

    def failed(self, why: str) -> float:
        """Returns the seconds until the camera is to be asked again; they grow while it comes for moments only."""
        if self._up_since is not None and time.monotonic() - self._up_since > _LONGEST_PAUSE_S:
            self._pause_s = _FIRST_PAUSE_S
        self._up_since = None
        if why not in self._told:
            self._told.add(why)
            self._tell(f"camera {self._name} is away: {why}; trying again")
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause_s

    def over(self) -> None:
        """The camera gives pictures."""
        if self._told:
            self._tell(f"camera {self._name} is back")
        self._told.clear()
        self._up_since = self._up_since or time.monotonic()
