"""A camera that sends a stream, or is a device of this machine. A process of its own reads it: see ``reader``."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from typing import Final

from app.client.watching.sources.address import Address
from app.client.watching.sources.camera import CameraAway, Outage, Picture

_READER: Final = "app.client.watching.sources.reader"


class StreamCamera:
    """A stream that is read without a pause, so that its newest picture is at hand; see ``Camera``.

    Args:
        address: of the stream or of the device.
        timeout_s: a stream without a picture for so long is connected again.
        outage: is told about failures.
    """

    def __init__(self, address: Address, timeout_s: float, outage: Outage) -> None:
        self._settings = {"url": address.url, "timeout_s": timeout_s}
        self._outage = outage
        self._requests: asyncio.StreamWriter | None = None
        self._wanted: asyncio.Future[Picture] | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())

    async def picture(self, max_age_s: float) -> Picture:
        """The newest picture; see ``Camera.picture``."""
        await asyncio.shield(self._ready)
        assert self._requests is not None  # noqa: S101  for the type checker
        self._wanted = asyncio.get_running_loop().create_future()
        self._requests.write(b"%r\n" % max_age_s)
        return await self._wanted

    async def aclose(self) -> None:
        """Ends the process."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._fail(CameraAway("the watcher ends"))

    async def _run(self) -> None:
        while True:
            why = await self._read()
            self._fail(CameraAway(why))
            await asyncio.sleep(self._outage.failed(why))
            self._ready = asyncio.get_running_loop().create_future()

    def _fail(self, error: CameraAway) -> None:
        if self._ready.done():
            self._ready = asyncio.get_running_loop().create_future()
        for waiting in (self._ready, self._wanted):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # perhaps nobody waits

    async def _read(self) -> str:
        """Reads the stream until it fails; returns why."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", _READER,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return f"cannot start a process that reads it: {error.strerror or error}"
        assert process.stdin is not None  # noqa: S101  for the type checker
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps(self._settings).encode() + b"\n")
            self._requests = process.stdin
            return await self._messages(process.stdout)
        except asyncio.IncompleteReadError:
            return "the process that reads it has ended"
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)  # Process.kill would take the exit status from asyncio
            await process.wait()
            process.stdin.close()

    async def _messages(self, reader: asyncio.StreamReader) -> str:
        while True:
            message = json.loads(await reader.readuntil())
            if "error" in message:
                return str(message["error"])
            if "ready" in message:
                self._outage.over()
                self._ready.set_result(None)
            else:
                content = await reader.readexactly(message["size"])
                if self._wanted is not None and not self._wanted.done():
                    self._wanted.set_result(Picture(content, ".png", message["time_ns"]))
