"""Watches a camera: takes a picture at each tick and for each trigger, one after another."""

import asyncio
import time
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import Any, Final

from app.client.watching.journal import Entry
from app.client.watching.options import CameraOptions
from app.client.watching.report import Report
from app.client.watching.sources.arrivals import Arrivals
from app.client.watching.sources.camera import Camera, CameraAway, Outage
from app.client.watching.sources.cameras import open_camera
from app.client.watching.sources.spool import Spool
from app.client.watching.sources.trigger import NoVerdict, listening
from app.client.watching.watcher import Stopped, Watcher

_LOOK_S: Final = 0.25


class Pictures:
    """Takes pictures, each only when the one before is archived: there is never a queue of old ones.

    Args:
        camera: gives them.
        spool: where they are until they are archived.
        arrivals: of the spool's folder.
        watcher: scores them.
    """

    def __init__(self, camera: Camera, spool: Spool, arrivals: Arrivals, watcher: Watcher) -> None:
        self._camera = camera
        self._spool = spool
        self._arrivals = arrivals
        self._watcher = watcher
        self._turn = asyncio.Lock()
        self._taking: asyncio.Task[Entry] | None = None

    async def take(self, max_age_s: float, patience_s: float | None = None) -> Entry:
        """Takes a picture, and returns its entry once it is archived.

        Args:
            max_age_s: how long ago the picture may have been received.
            patience_s: for the turn and the verdict; None: for as long as it takes. A picture that was taken gets its
                entry later.

        Raises:
            CameraAway: the camera gave no picture.
            OSError: it could not be written.
            TimeoutError: the patience is over.
            Stopped: the watcher is to end.
        """
        async with asyncio.timeout(patience_s):
            await self._turn.acquire()
            self._taking = asyncio.create_task(self._take(max_age_s))  # ends the turn, also if nobody waits any longer
            self._taking.add_done_callback(lambda task: task.cancelled() or task.exception())
            return await asyncio.shield(self._taking)

    async def aclose(self) -> None:
        """Ends waiting for the camera, and for the verdict of a picture, which the next run scores."""
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.gather(self._taking, return_exceptions=True)
        await self._camera.aclose()

    async def _take(self, max_age_s: float) -> Entry:
        try:
            await self._watcher.finish()  # what an earlier run left
            picture = await self._camera.picture(max_age_s)
            path = await asyncio.to_thread(self._spool.put, picture)
            self._arrivals.look([path])
            for entry in await self._watcher.finish():
                if entry.file == path.name:
                    return entry
            raise CameraAway(f"{path} has vanished before it was scored")
        finally:
            self._turn.release()


async def watch_camera(
    options: CameraOptions, arrivals: Arrivals, watcher: Watcher, report: Report, stop: asyncio.Event
) -> None:
    """Takes pictures until ``stop`` is set, or one with ``--once``.

    Args:
        options: of the command line.
        arrivals: of the spool's folder.
        watcher: scores them.
        report: tells what happens.
        stop: ends the watching.

    Raises:
        OSError: the spool cannot be created, or the trigger's port is taken.
        Stopped: while a picture could not be archived.
    """
    spool = Spool(options.spool, options.name)
    arrivals.scan()
    camera = open_camera(options.address, options.timeout_s, Outage(options.name, report.trouble))
    pictures = Pictures(camera, spool, arrivals, watcher)
    loop = asyncio.get_running_loop()

    def trigger() -> dict[str, Any]:
        try:
            return asyncio.run_coroutine_threadsafe(_answer(pictures, options.answer_s), loop).result()
        except CancelledError:
            raise NoVerdict("the watcher ends") from None

    working = asyncio.create_task(_ticks(pictures, options, report) if options.every_s else _wait(stop))
    try:
        with ExitStack() as stack:
            if options.trigger:
                stack.enter_context(listening(options.trigger, trigger))
            while not stop.is_set() and not working.done():
                report.tick()
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(working), _LOOK_S)
            if working.done():
                working.result()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await pictures.aclose()


async def _ticks(pictures: Pictures, options: CameraOptions, report: Report) -> None:
    """Takes a picture at each tick. A tick without a picture, or while a verdict is waited for, is missed."""
    assert options.every_s is not None  # noqa: S101  for the type checker
    due = time.monotonic()
    while True:
        try:
            await pictures.take(options.every_s)
            if options.once:
                return
        except CameraAway:  # the camera has reported it
            report.missed(1)
        except OSError as error:
            report.trouble(f"cannot write a picture: {error.strerror or error}")
            report.missed(1)
        late = max(0, int((time.monotonic() - due) // options.every_s))
        report.missed(late)
        due += (late + 1) * options.every_s
        await asyncio.sleep(due - time.monotonic())


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _answer(pictures: Pictures, patience_s: float) -> dict[str, Any]:
    """The entry of a picture that was received after the call, for a trigger."""
    try:
        return asdict(await pictures.take(0, patience_s))
    except CameraAway as error:
        raise NoVerdict(f"the camera gives no picture: {error}") from error
    except OSError as error:
        raise NoVerdict(
            f"no verdict in {patience_s:g} s; a picture that was taken will have its line in the journal"
            if isinstance(error, TimeoutError)
            else f"the picture cannot be written: {error.strerror or error}"
        ) from error
    except Stopped as error:
        raise NoVerdict("the watcher ends") from error
