"""Reference counting, so that a resource is not released while it is in use."""

import asyncio
from typing import Self


class RefCounted:
    """A reference-counted resource: entering a ``with`` block acquires it, leaving the block releases it.

    Attributes:
        references: the number of current users.
    """

    def __init__(self) -> None:
        self.references = 0
        self._released = asyncio.Event()

    def acquire(self) -> None:
        """Adds a reference."""
        self.references += 1

    def release(self) -> None:
        """Removes a reference."""
        self.references -= 1
        if not self.references:
            self._released.set()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    async def wait_until_unused(self) -> None:
        """Returns once there are no references."""
        while self.references:
            self._released.clear()
            await self._released.wait()
