"""The memory that requests may take, derived from what the process may use: the container's limit, or the machine's.

Requests hold bodies and results, decoders hold pixels. Both together stay within the limit, and requests within a part
of it, so that there is always memory to decode what has been received.
"""

from typing import Final, Self

from app.inference.errors import Overloaded, TooMuchMemory
from app.inference.serving.backlog import Backlog

_MARGIN: Final = 1 / 16  # of the limit, for what is not counted: connections, fragments, other requests
_REQUESTS_SHARE: Final = 1 / 4  # of what requests and decoders have together
_MIN_BODIES: Final = 4  # of the largest size, counted twice
_NEWCOMERS: Final = 3  # a client may have so many times as much as it leaves free, and thus 3/4 of all if it is alone

_MIB: Final = 2**20


class Memory:
    """The memory of one process for requests and decoders, in bytes.

    Args:
        max_body_bytes: size of the largest request body.

    Attributes:
        limit: of both together.
        decoding: what decoders have now.
        most_per_request: what a request can have if there is no other one.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self.decoding = 0
        self._least = 2 * _MIN_BODIES * max_body_bytes
        self._requests = Backlog(0)
        self.set_limit(self._least * 2)

    def set_limit(self, limit: int) -> bool:
        """Changes the limit. It is at least what a few requests of the largest size take; False if that is more."""
        self.limit = max(limit, 2 * self._least)
        most = max(self._least, int(self.limit * _REQUESTS_SHARE))
        self._requests.limit = most
        self.most_per_request = most * _NEWCOMERS // (_NEWCOMERS + 1)
        return self.limit == limit

    @property
    def requests(self) -> int:
        """What requests have now."""
        return int(self._requests.total)

    def claim(self, client: str) -> "Claim":
        """The memory of one request, none at first. Release it when its answer is sent."""
        return Claim(self, client)

    def take(self, client: str, amount: int) -> None:
        """Takes memory for a request.

        A client gets at most three times what it leaves free, so that there is always some for another one
        (Choudhury, Hahne, "Dynamic queue length thresholds", 1998).

        Raises:
            Overloaded: there is not enough now.
        """
        requests = self._requests
        total = requests.total + amount
        # Mostly there is so much that one client could have what all have.
        if total > self.most_per_request or 2 * total + self.decoding > self.limit:
            free, own = min(requests.limit, self.limit - self.decoding) - total, requests.of(client)
            if free < 0 or (own and own + amount > _NEWCOMERS * free):
                raise Overloaded("other requests take the memory", requests.seconds_until_room(amount))
        requests.add(client, amount)

    def give_back(self, client: str, amount: int) -> None:
        """Returns memory of a request."""
        self._requests.add(client, -amount)

    def fits(self, amount: int) -> bool:
        """Whether a decoder can have memory now."""
        return self.requests + self.decoding + amount <= self.limit

    def require_possible(self, amount: int) -> None:
        """Checks the memory of an image before it is queued.

        Raises:
            TooMuchMemory: a decoder never has so much.
        """
        most = self.limit - self._least // _MIN_BODIES
        if amount > most:
            raise TooMuchMemory(
                f"decoding the image takes about {amount // _MIB} MiB of memory, {most // _MIB} MiB is the limit"
            )


class Claim:
    """The memory of one request.

    Attributes:
        amount: what it has, in bytes.
        client: whose request it is; not to be changed while it has memory.
    """

    __slots__ = ("_memory", "amount", "client")

    def __init__(self, memory: Memory, client: str) -> None:
        self.amount = 0
        self.client = client
        self._memory = memory

    def take(self, amount: int) -> None:
        """Takes more.

        Raises:
            Overloaded: there is not enough now.
            TooMuchMemory: a request never has so much.
        """
        memory, total = self._memory, self.amount + amount
        if total > memory.most_per_request:
            raise TooMuchMemory(
                f"the request and its answer take more than {memory.most_per_request // _MIB} MiB of memory"
            )
        memory.take(self.client, amount)
        self.amount = total

    def release(self) -> None:
        """Returns all of it."""
        if self.amount:
            self._memory.give_back(self.client, self.amount)
            self.amount = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def request_bytes(available: int, resident: int) -> int:
    """What is left for requests of a process's memory.

    Args:
        available: to the process.
        resident: what it takes without requests: libraries and models.
    """
    return int(available * (1 - _MARGIN)) - resident
