"""An amount of work in progress, by client: who may add to it, and when it will be less."""

import math
import time
from collections.abc import Callable
from typing import Final

_WINDOW_S: Final = 10.0  # over which the rate is measured
_LONGEST_WAIT_S: Final = 60


class Backlog:
    """Work in progress: images, seconds of decoding, or bytes of memory.

    Args:
        limit: most work in progress.
        now: a monotonic clock.

    Attributes:
        total: the work in progress, of all clients.
    """

    def __init__(self, limit: float, now: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.total: float = 0
        self._now = now
        self._of: dict[str, float] = {}
        self._since = 0.0  # the window over which the rate is measured
        self._done: float = 0

    def of(self, client: str) -> float:
        """The work in progress of a client."""
        return self._of.get(client, 0)

    def add(self, client: str, amount: float) -> None:
        """Begins work, or ends it if the amount is negative."""
        if not self.total:
            self._since, self._done = self._now(), 0
        self.total += amount
        if amount < 0:
            self._done -= amount
        clients = self._of
        own = clients.get(client, 0) + amount
        if own > 0:
            clients[client] = own
        else:
            clients.pop(client, None)
            if not clients:
                self.total = 0  # sums of fractions may leave a remainder

    def has_share(self, client: str, amount: float) -> bool:
        """Whether a client would stay within its equal share of the limit, or has nothing in progress.

        With such shares, work in progress can exceed the limit, by as much as those who came later may have.
        """
        own = self._of.get(client, 0)
        return not own or own + amount <= self.limit / len(self._of)

    def seconds_until_room(self, amount: float) -> int:
        """When there will probably be room, in whole seconds from 1 to 60, by what was done lately."""
        now = self._now()
        passed = now - self._since
        excess = self.total + amount - self.limit
        wait = excess * passed / self._done if self._done > 0 else passed  # longer, the longer nothing is done
        if passed > _WINDOW_S:  # the next window begins with half of this one
            self._since, self._done = now - passed / 2, self._done / 2
        return min(_LONGEST_WAIT_S, max(1, math.ceil(wait)))
