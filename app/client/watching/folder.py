"""Watches a folder: reacts to notifications and time until it is stopped."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.client.model_choice import CannotRun
from app.client.watching.options import FolderOptions
from app.client.watching.report import Report
from app.client.watching.sources.arrivals import Arrivals
from app.client.watching.sources.notifications import changed_paths, is_on_network
from app.client.watching.watcher import Watcher

_SEARCH_S: Final = 60.0  # a search of the whole folder finds what a notification was lost for
_POLL_S: Final = 2.0
_TICK_S: Final = 0.25


async def watch_folder(
    options: FolderOptions,
    arrivals: Arrivals,
    watcher: Watcher,
    report: Report,
    wake: asyncio.Event,
    stop: asyncio.Event,
) -> None:
    """Hands images to the watcher once they are complete, until ``stop`` is set, or none is left with ``--once``.

    Args:
        options: of the command line.
        arrivals: of the folder.
        watcher: scores them.
        report: tells what happens.
        wake: is set when there is something to do.
        stop: ends the watching; ``wake`` must be set with it.
    """
    changed: set[Path] = set()
    polling = options.poll_s or (_POLL_S if is_on_network(options.folder) else None)
    listening = None if polling or options.once else asyncio.create_task(_listen(options.folder, changed, wake, stop))
    next_search = time.monotonic()
    try:
        while not stop.is_set():
            wake.clear()
            if listening and listening.done():
                listening.result()
            if time.monotonic() >= next_search:
                try:
                    arrivals.scan()
                except OSError as error:  # a share that is away comes back
                    report.trouble(f"cannot read {options.folder}: {error.strerror or error}")
                next_search = time.monotonic() + (polling or _SEARCH_S)
            arrivals.look(changed)
            changed.clear()
            watcher.start()
            report.tick()
            if options.once and not arrivals and not watcher.busy:
                return
            busy = arrivals or watcher.busy
            pause = min(_TICK_S, options.settle_s) if busy else max(0.0, min(next_search - time.monotonic(), _SEARCH_S))
            with suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), pause)
    finally:
        if listening:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def _listen(folder: Path, changed: set[Path], wake: asyncio.Event, stop: asyncio.Event) -> None:
    try:
        async for paths in changed_paths(folder, stop):
            changed.update(paths)
            wake.set()
    except ModuleNotFoundError as error:
        raise CannotRun("watchfiles is not installed; run: pip install watchfiles, or use --poll 2") from error
    finally:
        wake.set()
