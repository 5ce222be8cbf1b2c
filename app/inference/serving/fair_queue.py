"""A queue whose parties take turns by what they have received, not by what they ask for."""

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

_MOST_AHEAD: Final = 256  # before those that count no more are removed

_T = TypeVar("_T")


class _Entry(NamedTuple, Generic[_T]):
    item: _T
    cost: float


class _Party(Generic[_T]):
    """One party: its items, or the parties within it.

    Attributes:
        served: the cost of what it has received, as if it had always taken part.
    """

    def __init__(self, served: float) -> None:
        self.served = served
        self.entries: deque[_Entry[_T]] = deque()
        self.parties: FairQueue[_T] | None = None


class FairQueue(Generic[_T]):
    """Items of several parties, each with a cost. The party that was served least is next (start-time fair queueing).

    A party has its place after one item of every other party, however many items these have queued, and however much
    each of them costs. Parties can consist of parties, such as a client of models.

    Source: Goyal, Vin, Cheng, "Start-time fair queuing", 1997.
    """

    def __init__(self) -> None:
        self._parties: dict[Hashable, _Party[_T]] = {}
        self._served: float = 0  # of the party that was served last, before that
        self._ahead: dict[Hashable, float] = {}  # what parties without items were served, if it is more

    def __bool__(self) -> bool:
        """Whether there are items."""
        return bool(self._parties)

    def push(self, item: _T, cost: float, parties: Sequence[Hashable]) -> None:
        """Adds an item.

        Args:
            item: the item.
            cost: of the item, at least 0.
            parties: whose it is, the outermost party first; always as many.
        """
        name, *inner = parties
        party = self._parties.get(name)
        if party is None:
            party = self._parties[name] = _Party(max(self._served, self._ahead.pop(name, 0)))
        if inner:
            party.parties = party.parties or FairQueue()
            party.parties.push(item, cost, inner)
        else:
            party.entries.append(_Entry(item, cost))

    def peek(self) -> _T:
        """The next item, which stays."""
        party = self._parties[self._next()]
        return party.entries[0].item if party.parties is None else party.parties.peek()

    def pop(self) -> _T:
        """Takes the next item and counts its cost as served."""
        return self._take(counted=True).item

    def drop(self) -> None:
        """Removes the next item, which nobody wants any more."""
        self._take(counted=False)

    def forget(self) -> None:
        """Lets all parties begin anew. Call it when no item waits, and none that was taken is in work."""
        self._ahead.clear()

    def _next(self) -> Hashable:
        return min(self._parties, key=lambda name: self._parties[name].served)

    def _take(self, *, counted: bool) -> _Entry[_T]:
        name = self._next()
        party = self._parties[name]
        entry = party.entries.popleft() if party.parties is None else party.parties._take(counted=counted)
        if counted:
            self._served = party.served
            party.served += entry.cost
        if not party.entries and not party.parties:
            del self._parties[name]
            self._ahead[name] = party.served
            if len(self._ahead) > _MOST_AHEAD:
                self._ahead = {each: served for each, served in self._ahead.items() if served > self._served}
        return entry
