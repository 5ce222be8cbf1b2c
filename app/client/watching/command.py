"""Runs ``python -m app.client watch``: wires the parts, and ends with a signal."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final

from app.client.arguments import Exit
from app.client.clients import AsyncAnomalyClient
from app.client.errors import ServiceUnreachable
from app.client.model_choice import CannotRun, model_card
from app.client.watching.archive import Archive
from app.client.watching.broker import Broker
from app.client.watching.deliveries import Deliveries, Receiver
from app.client.watching.folder import watch_folder
from app.client.watching.journal import Journal, UnusableJournal
from app.client.watching.options import CameraOptions, Options, parse_options
from app.client.watching.pictures import watch_camera
from app.client.watching.report import Report
from app.client.watching.sources.arrivals import Arrivals
from app.client.watching.watcher import Stopped, Watcher
from app.client.watching.webhook import Webhook

_TICK_S: Final = 0.25


def main(words: list[str]) -> int:
    """Runs the command; returns the exit status."""
    options = parse_options(words)
    if sys.platform == "linux":
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # see arrivals.is_open_for_writing
    try:
        asyncio.run(_run(options))
    except (CannotRun, UnusableJournal, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return Exit.CANNOT_RUN
    return Exit.DONE


async def _run(options: Options) -> None:
    archive = None if options.archive is None else Archive(options.archive, keep=options.keep)
    arrivals = _arrivals(options)
    report = Report(each=options.each, waiting=lambda: len(arrivals) + watcher.busy)
    wake, stop = asyncio.Event(), asyncio.Event()
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            AsyncAnomalyClient(options.url, api_key=options.api_key, timeout_s=options.timeout_s)
        )
        await _check(service, options, report)
        journal = stack.enter_context(Journal(options.journal))
        deliveries = [
            Deliveries(options.journal, name, receiver, options.on, report.trouble)
            for name, receiver in await _receivers(options, stack)
        ]

        def on_done() -> None:
            wake.set()
            for each in deliveries:
                each.notify()

        watcher = Watcher(
            service,
            options.scoring,
            arrivals,
            journal,
            archive,
            operator=options.operator,
            camera=options.camera,
            report=report,
            concurrency=options.concurrency,
            on_done=on_done,
            stopping=stop,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, _set_both, stop, wake)
        stack.push_async_callback(_finish, deliveries, [asyncio.create_task(each.run()) for each in deliveries])
        stack.push_async_callback(watcher.stop)
        with suppress(Stopped):
            await watcher.recover()
            if isinstance(options.source, CameraOptions):
                await watch_camera(options.source, arrivals, watcher, report, stop)
            else:
                await watch_folder(options.source, arrivals, watcher, report, wake, stop)
        on_done()
        await _deliver_rest(deliveries, stop)
    if not options.each:
        report.summarize()


def _arrivals(options: Options) -> Arrivals:
    if isinstance(options.source, CameraOptions):
        return Arrivals(options.source.spool, archive=None, settle_s=0)  # each file there is whole
    return Arrivals(options.source.folder, options.archive, options.source.settle_s)


def _set_both(stop: asyncio.Event, wake: asyncio.Event) -> None:
    stop.set()
    wake.set()


async def _receivers(options: Options, stack: AsyncExitStack) -> list[tuple[str, Receiver]]:
    receivers: list[tuple[str, Receiver]] = []
    if options.webhook:
        webhook = Webhook(options.webhook, options.webhook_secret)
        stack.push_async_callback(webhook.aclose)
        receivers.append(("webhook", webhook))
    if options.mqtt:
        from app.client.watching.mqtt import Mqtt  # noqa: PLC0415  paho-mqtt is needed for --mqtt only

        mqtt = Mqtt(Broker.parse(options.mqtt))
        stack.push_async_callback(mqtt.aclose)
        receivers.append(("mqtt", mqtt))
    return receivers


async def _deliver_rest(deliveries: Sequence[Deliveries], stop: asyncio.Event) -> None:
    """Waits until others know all entries; not if a signal ends the run, since the next one tells them."""
    while not stop.is_set() and not all(each.done for each in deliveries):
        await _pause(stop, _TICK_S)


async def _finish(deliveries: Sequence[Deliveries], tasks: Sequence[asyncio.Task[None]]) -> None:
    for each in deliveries:
        each.stop()
    await asyncio.gather(*tasks)


async def _pause(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def _check(service: AsyncAnomalyClient, options: Options, report: Report) -> None:
    """Refuses a wrong key or an unknown model at once; a service that is not there yet is waited for."""
    try:
        await model_card(service, options.scoring.model, url=options.url, api_key=options.api_key)
    except CannotRun as error:
        if not isinstance(error.__cause__, ServiceUnreachable):
            raise
        report.trouble(f"waiting: {error}")
