"""The open connections of a process, which can have a limited number of them.

A process without a free descriptor accepts no connection, opens no file and starts no decoder. So the service keeps
some back: beyond the limit, each new connection closes the one that has waited for a request for the longest time.
"""

import resource
from typing import Final, Protocol

MOST: Final = 4096
"""A connection without a request takes 7 kB."""

_KEPT_BACK: Final = 512  # descriptors for files, decoders and libraries
_LEAST_SHARE: Final = 3 / 4  # of few descriptors are for connections nevertheless


class Abortable(Protocol):
    """A connection."""

    def abort(self) -> None:
        """Closes it at once."""


class Connections:
    """Keeps the number of connections within a limit.

    Args:
        limit: most open connections.
    """

    def __init__(self, limit: int = MOST) -> None:
        self.limit = limit
        self._open: set[Abortable] = set()
        self._waiting: dict[Abortable, None] = {}  # the longest first

    def opened(self, connection: Abortable) -> None:
        """A connection was made; it waits for its first request. Another one may be closed, or this one if all work."""
        self._open.add(connection)
        self._waiting[connection] = None
        if len(self._open) > self.limit:
            longest = next(iter(self._waiting))
            self.closed(longest)
            longest.abort()

    def waits(self, connection: Abortable) -> None:
        """It has no request in progress now."""
        if connection in self._open:
            self._waiting[connection] = None

    def works(self, connection: Abortable) -> None:
        """It has a request in progress now."""
        self._waiting.pop(connection, None)

    def closed(self, connection: Abortable) -> None:
        """It no longer counts."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)


def most_connections() -> int:
    """The number of connections that the system allows besides other files. Its soft limit is raised if possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + _KEPT_BACK
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    allowed = wanted if soft == resource.RLIM_INFINITY else soft
    return min(MOST, max(allowed - _KEPT_BACK, int(allowed * _LEAST_SHARE)))
