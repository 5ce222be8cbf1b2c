"""Tells another system about the entries of the journal, in their order, across restarts.

The journal itself is the queue. A small file beside it holds how far it was delivered. It moves on after the receiver
has accepted an entry, so an accepted entry is not sent again, and one without an answer is, with the same id.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, Protocol

from app.client.watching.journal import Entry, read_from
from app.files.writing import replace_file

_FIRST_PAUSE_S: Final = 0.5  # before an entry is sent again; doubles
_LONGEST_PAUSE_S: Final = 60.0

Occasion = Literal["anomaly", "all"]


class NotDelivered(Exception):
    """The receiver did not accept an entry; it is sent again."""


class Refused(Exception):
    """The receiver will never accept this entry; it is passed over."""


class Receiver(Protocol):
    """Another system that is told about entries."""

    async def send(self, entry: Entry) -> None:
        """Sends an entry, and returns when it was accepted.

        Raises:
            NotDelivered: it may be sent again.
            Refused: it must not.
        """


class Deliveries:
    """Delivers the entries of a journal to one receiver.

    Args:
        journal: the file; complete lines are delivered.
        name: of the kind of receiver, for the file that holds the position.
        receiver: is told.
        occasion: ``anomaly``: all entries but those of normal images.
        trouble: is called with what goes wrong.
    """

    def __init__(
        self, journal: Path, name: str, receiver: Receiver, occasion: Occasion, trouble: Callable[[str], None]
    ) -> None:
        self._journal = journal
        self._position_file = journal.with_name(f"{journal.name}.{name}")
        self._name = name
        self._receiver = receiver
        self._occasion = occasion
        self._trouble = trouble
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._position = self._first_position()

    @property
    def done(self) -> bool:
        """Whether all entries have been delivered."""
        return self._position == self._journal.stat().st_size

    def notify(self) -> None:
        """There may be new entries."""
        self._wake.set()

    def stop(self) -> None:
        """Ends :meth:`run` when the entry that is being sent has its answer, so that it is not sent again."""
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Delivers until stopped.

        Raises:
            UnusableJournal: it has a line that is no entry.
        """
        while not self._stopping.is_set():
            for entry, end in read_from(self._journal, self._position):
                if self._occasion == "all" or entry.verdict != "normal":
                    if not await self._deliver(entry):
                        return
                    await self._move_to(end)
                self._position = end
            await self._wake.wait()
            self._wake.clear()

    async def _deliver(self, entry: Entry) -> bool:
        """Whether the entry is done with; False: stopped before the receiver accepted it."""
        pause = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                await self._receiver.send(entry)
            except NotDelivered as error:
                self._trouble(f"{self._name}: {error}; trying again")
            except Refused as error:
                self._trouble(f"{self._name}: {entry.file} ({entry.id}) was refused: {error}")
                return True
            else:
                return True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        return False

    async def _move_to(self, position: int) -> None:
        """Remembers the position; on a full disk only in memory, so that a restart would send entries again."""
        try:
            await asyncio.to_thread(replace_file, self._position_file, b"%d\n" % position)
        except OSError as error:
            self._trouble(f"cannot write {self._position_file}: {error.strerror or error}")

    def _first_position(self) -> int:
        """Where the last run stopped; the end of the journal in the first run, since old entries are no news."""
        size = self._journal.stat().st_size
        with suppress(FileNotFoundError, ValueError):
            position = int(self._position_file.read_bytes())
            return position if position <= size else 0  # the journal was replaced: all is new
        replace_file(self._position_file, b"%d\n" % size)
        return size
