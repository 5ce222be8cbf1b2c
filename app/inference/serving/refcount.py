"""Counting who uses something, so that it is not taken away under them."""

import asyncio
from typing import Self


class Used:
    """Something that has users: a ``with`` block is one, from its first line to its last.

    Attributes:
        users: how many there are.
    """

    def __init__(self) -> None:
        self.users = 0
        self._left = asyncio.Event()

    def hold(self) -> None:
        """One user more."""
        self.users += 1

    def let_go(self) -> None:
        """One user less."""
        self.users -= 1
        if not self.users:
            self._left.set()

    def __enter__(self) -> Self:
        self.hold()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    async def unused(self) -> None:
        """Waits until nobody uses it."""
        while self.users:
            self._left.clear()
            await self._left.wait()
