"""Scenarios that measure the service under overload, with misbehaving clients, while it drains and while models change.

Each runs against a real server process and returns figures. ``make soak`` (``benchmarks.soak``) runs them for long, the
tests run them briefly.
"""

import asyncio
import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from PIL import Image

from app.inference.bundles.store import CURRENT_FILE
from benchmarks.load.clients import (
    Connection,
    LostRequest,
    Reply,
    Tally,
    crowd,
    drip,
    get,
    hang_up_early,
    in_groups,
    never_listen,
    post,
    probe,
    quantile_of,
    sit_idle,
)
from benchmarks.load.server_process import free_port

ROOT: Final = Path(__file__).resolve().parent.parent

OK, UNAVAILABLE, BUSY = 200, 503, 429

_START_S: Final = 60
_STOP_S: Final = 60


class Process(Protocol):
    """The part of ``subprocess.Popen`` that the scenarios need."""

    @property
    def pid(self) -> int:
        """The id of the process."""

    def send_signal(self, number: int, /) -> None:
        """Sends a signal; does nothing if the process has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end of the process; returns its exit status."""


@dataclass(frozen=True)
class Service:
    """A running service process."""

    process: Process
    port: int

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        """Number of open file descriptors of the process."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())


@contextlib.contextmanager
def service(store: Path, *, core: int | None = None, **settings: Any) -> Iterator[Service]:
    """Runs ``python -m app`` until the end of the block; only errors are logged.

    Args:
        store: the model store.
        core: the only core that it may use; None: all cores.
        settings: further settings of the service.

    Raises:
        TimeoutError: it was not ready within a minute.
    """
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANOMALY_")}
    all_settings = {"model_store": store, "port": port, "log_level": "error", **settings}
    environment |= {f"ANOMALY_{name.upper()}": str(value) for name, value in all_settings.items()}
    pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
    process = subprocess.Popen([*pinned, sys.executable, "-m", "app"], cwd=ROOT, env=environment)  # noqa: S603
    try:
        asyncio.run(_ready(port))
        yield Service(process, port)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_S)


async def _ready(port: int) -> None:
    connection, until = Connection(port), time.monotonic() + _START_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError, LostRequest):
            if (await connection.send(get("/health/ready"))).status == OK:
                connection.close()
                return
        await asyncio.sleep(0.05)
    raise TimeoutError(f"the service was not ready within {_START_S} s")


def image(size: int, image_format: str = "PNG", seed: int = 0) -> bytes:
    """The file of a square grey image of smoothed noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (max(size // 8, 1),) * 2, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((size, size), Image.Resampling.BILINEAR).save(file, image_format)
    return file.getvalue()


class Goal(NamedTuple):
    """A figure and its upper limit."""

    figure: str
    value: float
    most: float

    def __str__(self) -> str:
        return f"{self.figure}: {self.value:.3g}, the goal is at most {self.most:g}"


@dataclass(frozen=True)
class Overload:
    """Correct answers at four times the peak load, compared with the peaks before and after.

    Attributes:
        peak_per_s: answers per second at the peak, with 32 clients.
        offered_per_s: requests per second under overload.
        good_per_s: correct answers per second under overload.
        share_of_peak: median over the rounds of the correct answers per second, divided by the mean of the peaks before
            and after the round.
        busy_share: share of the answers with status 429.
        busy_p99_s: their latency.
        good_p99_s: latency of the correct answers.
        health_slowest_s: maximum latency of ``/health``.
        memory_growth: relative to the memory before.
    """

    peak_per_s: float
    offered_per_s: float
    good_per_s: float
    share_of_peak: float
    busy_share: float
    busy_p99_s: float
    good_p99_s: float
    health_slowest_s: float
    memory_growth: float

    def goals(self) -> list[Goal]:
        """Of a long run."""
        return [
            Goal("share of correct answers lost by overload", 1 - self.share_of_peak, 0.15),
            Goal("seconds to a 429 (p99)", self.busy_p99_s, 0.05),
            Goal("seconds to the slowest /health under overload", self.health_slowest_s, 0.1),
        ]


async def overload(service: Service, *, seconds: float, rounds: int = 1, size: int = 640) -> Overload:
    """Measures the peak with 32 clients, then sends four times as many requests per second, alternately."""
    requests = [post(image(size, seed=seed)) for seed in range(8)]
    peak_load = partial(crowd, service.port, requests, connections=32)
    await peak_load(seconds=seconds / 4)  # warm-up
    peaks = [(await peak_load(seconds=seconds)).per_second()]
    before, tallies, health = service.resident_bytes(), list[Tally](), list[float]()
    for _ in range(rounds):
        latencies, tally = await asyncio.gather(
            probe(service.port, "/health", seconds=seconds),
            crowd(service.port, requests, connections=1024, seconds=seconds, rate=4 * peaks[-1]),
        )
        assert not tally.lost, tally.lost  # noqa: S101
        assert set(tally.statuses()) <= {OK, BUSY}, tally.statuses()  # noqa: S101
        health += latencies
        tallies.append(tally)
        peaks.append((await peak_load(seconds=seconds)).per_second())
    answered = sum(len(tally.replies) for tally in tallies)
    return Overload(
        peak_per_s=median(peaks),
        offered_per_s=median(tally.sent / seconds for tally in tallies),
        good_per_s=median(tally.per_second() for tally in tallies),
        # The speed of a shared machine varies, hence the peaks before and after each round.
        share_of_peak=median(
            2 * tally.per_second() / sum(around) for tally, around in zip(tallies, pairwise(peaks), strict=True)
        ),
        busy_share=sum(tally.statuses().get(BUSY, 0) for tally in tallies) / answered,
        busy_p99_s=median(tally.latency(0.99, BUSY) for tally in tallies),
        good_p99_s=median(tally.latency(0.99) for tally in tallies),
        health_slowest_s=max(health),
        memory_growth=service.resident_bytes() / before - 1,
    )


@dataclass(frozen=True)
class BadClients:
    """Requests of well-behaved clients before and while other clients misbehave.

    Attributes:
        clients: number of clients that disconnect early.
        p99_alone_s: latency before.
        p99_among_s: latency while clients misbehave.
        failed: number of requests of well-behaved clients that failed.
        files_left: file descriptors that are still open afterwards.
        memory_growth: relative to the memory before.
    """

    clients: int
    p99_alone_s: float
    p99_among_s: float
    failed: int
    files_left: int
    memory_growth: float

    def goals(self) -> list[Goal]:
        """Of a long run."""
        return [
            Goal("failed requests of well-behaved clients", self.failed, 0),
            Goal("file descriptors left open by misbehaving clients", self.files_left, 0),
            Goal("memory growth after misbehaving clients", self.memory_growth, 0.05),
        ]


async def bad_clients(service: Service, *, clients: int, idle: int = 500, seconds: float = 3) -> BadClients:
    """Runs idle, slow and disconnecting clients next to a few well-behaved ones."""
    good, upload = [post(image(28))], post(image(256))
    load = partial(crowd, service.port, good, connections=4, rate=100)
    alone = await load(seconds=seconds)
    await in_groups([partial(hang_up_early, service.port, upload)] * 200, 20)  # warm-up: some memory is never freed
    await asyncio.sleep(1)
    files, memory = service.open_files(), service.resident_bytes()
    disconnecting = [
        partial(random.choice((hang_up_early, never_listen)), service.port, upload)  # noqa: S311  not a secret
        for _ in range(clients)
    ]
    others = asyncio.gather(
        *(sit_idle(service.port, seconds) for _ in range(idle)),
        *(drip(service.port, upload, seconds) for _ in range(50)),
        in_groups(disconnecting, 20),
    )
    among = await load(seconds=seconds)
    await others
    for _ in range(100):
        if service.open_files() <= files:
            break
        await asyncio.sleep(0.1)
    return BadClients(
        clients=clients,
        p99_alone_s=alone.latency(0.99),
        p99_among_s=among.latency(0.99),
        failed=among.lost + among.refused + len(among.replies) - among.statuses().get(OK, 0),
        files_left=service.open_files() - files,
        memory_growth=service.resident_bytes() / memory - 1,
    )


@dataclass(frozen=True)
class Drained:
    """A process that received SIGTERM under full load.

    Attributes:
        answered: requests that were scored.
        turned_away: requests with status 503, or whose connection was refused.
        lost: accepted requests without a complete answer.
        seconds_to_exit: from SIGTERM to the end of the process.
        exit_status: of the process.
    """

    answered: int
    turned_away: int
    lost: int
    seconds_to_exit: float
    exit_status: int

    def goals(self) -> list[Goal]:
        """Of every run."""
        return [
            Goal("accepted requests lost while draining", self.lost, 0),
            Goal("absolute exit status after draining", abs(self.exit_status), 0),
        ]


async def drained(service: Service) -> Drained:
    """Sends SIGTERM to a service under full load."""
    requests = [post(image(28)), post(image(256))]
    load = asyncio.create_task(
        crowd(service.port, requests, connections=32, seconds=_STOP_S, until=lambda reply: reply.status != OK)
    )
    await asyncio.sleep(0.5 + random.random() / 2)  # noqa: S311
    began = time.perf_counter()
    service.process.send_signal(signal.SIGTERM)
    tally = await load
    exit_status = await asyncio.to_thread(service.process.wait, _STOP_S)
    statuses = tally.statuses()
    assert set(statuses) <= {OK, UNAVAILABLE}, statuses  # noqa: S101
    return Drained(
        answered=statuses[OK],
        turned_away=statuses.get(UNAVAILABLE, 0) + tally.refused,
        lost=tally.lost,
        seconds_to_exit=time.perf_counter() - began,
        exit_status=exit_status,
    )


@dataclass(frozen=True)
class Swapped:
    """A model whose version changed repeatedly under load.

    Attributes:
        swaps: number of changes.
        answered: number of answers.
        failed: number of requests that failed.
        mislabelled: number of answers that name another version than the one that computed the score.
    """

    swaps: int
    answered: int
    failed: int
    mislabelled: int

    def goals(self) -> list[Goal]:
        """Of every run."""
        return [
            Goal("requests failed while models were swapped", self.failed, 0),
            Goal("answers labelled with the wrong version", self.mislabelled, 0),
        ]


async def swapped(service: Service, model: Path, *, swaps: int) -> Swapped:
    """Switches ``CURRENT`` between two versions of a model; a score shows which version computed it."""
    versions = sorted(each.name for each in model.iterdir() if each.is_dir())  # noqa: ASYNC240
    connection, data = Connection(service.port), image(28)
    scores: dict[str, float] = {}
    stop = asyncio.Event()

    async def switch_to(version: str) -> None:
        new = model / "CURRENT.new"
        new.write_text(version)
        new.replace(model / CURRENT_FILE)
        while True:
            answer = json.loads((await connection.send(post(data))).body)
            if answer["model"]["version"] == version:
                scores.setdefault(version, answer["results"][0]["score"])
                return
            await asyncio.sleep(0.02)

    for version in versions:
        await switch_to(version)
    load = asyncio.create_task(
        crowd(service.port, [post(data)], connections=8, seconds=600, until=lambda _: stop.is_set())
    )
    for swap in range(swaps):
        await switch_to(versions[swap % len(versions)])
    stop.set()
    tally = await load
    connection.close()
    return Swapped(
        swaps=swaps,
        answered=len(tally.replies),
        failed=tally.lost + tally.refused + len(tally.replies) - tally.statuses().get(OK, 0),
        mislabelled=sum(not _scored_by_its_version(reply, scores) for reply in tally.replies if reply.status == OK),
    )


def _scored_by_its_version(reply: Reply, scores: dict[str, float]) -> bool:
    answer = json.loads(reply.body)
    expected = scores[answer["model"]["version"]]
    # Scores of one version differ by rounding, because batches differ; scores of two versions differ by far more.
    return abs(float(answer["results"][0]["score"]) - expected) <= 1e-5 * expected


@dataclass(frozen=True)
class Soaked:
    """A long run at 70 % of the peak with valid, damaged and huge images.

    Attributes:
        minutes: duration.
        answered: number of answers.
        unexplained: number of missing answers and of unexpected statuses.
        p99_s: latency, the maximum over half minutes.
        memory_growth: relative to the memory after settling.
    """

    minutes: float
    answered: int
    unexplained: int
    p99_s: float
    memory_growth: float

    def goals(self) -> list[Goal]:
        """Of a long run."""
        return [
            Goal("unexpected answers in the soak", self.unexplained, 0),
            Goal("memory growth in the soak", self.memory_growth, 0.02),
        ]


async def soak(service: Service, *, minutes: float, settle: float) -> Soaked:
    """Sends a mix of images for minutes; the first ``settle`` minutes are not measured."""
    multipart = "multipart/form-data; boundary=b"
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%d.png"\r\n\r\n%b\r\n'
    parts = b"".join(part % (seed, image(28, seed=seed)) for seed in range(8))
    mix: list[tuple[bytes, int]] = [(post(image(28, seed=seed)), OK) for seed in range(40)]
    mix += [
        (post(parts + b"--b--\r\n", content_type=multipart), OK),
        (post(image(640, "JPEG"), content_type="image/jpeg"), OK),
        (post(image(2500)), OK),
        (post(image(5200)), 413),  # more pixels than the default allows
        (post(image(64)[:-40]), 422),
        (post(b"no image"), 422),
        (post(b"", content_type=multipart), 400),
        (post(image(28), path="/score?model=nobody"), 404),
    ]
    requests = [request for request, _ in mix]
    peak = len((await crowd(service.port, requests, connections=32, seconds=5)).replies) / 5
    run = partial(crowd, service.port, requests, connections=32, rate=0.7 * peak)
    await run(seconds=settle * 60)
    before, answered, unexplained, latencies = service.resident_bytes(), 0, 0, list[float]()
    until = time.monotonic() + (minutes - settle) * 60
    while (
        left := until - time.monotonic()
    ) > 0:  # in slices of half a minute, so that not all replies are kept in memory
        tally = await run(seconds=min(left, 30))
        answered += len(tally.replies)
        unexplained += tally.lost + tally.refused + sum(reply.status != mix[reply.kind][1] for reply in tally.replies)
        latencies.append(tally.latency(0.99))
    return Soaked(
        minutes=minutes,
        answered=answered,
        unexplained=unexplained,
        p99_s=quantile_of(latencies, 1),
        memory_growth=service.resident_bytes() / before - 1,
    )
