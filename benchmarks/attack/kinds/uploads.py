"""Attacks with many or large bodies."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from benchmarks.attack.attack import Arena, Attack, Findings
from benchmarks.attack.kinds.image_files import multipart, noise_png
from benchmarks.attack.wire import post
from benchmarks.load.clients import Reply
from benchmarks.reliability import BUSY, image

_LARGEST: Final = 16 * 2**20
_JSON_KEYS: Final = 1_600_000


def statuses(replies: Sequence[Reply | None]) -> str:
    """The statuses of answers with their numbers, as one phrase."""
    seen = [str(reply.status) if reply else "none" for reply in replies]
    return ", ".join(f"{seen.count(each)} × {each}" for each in sorted(set(seen)))


async def _upload_many(arena: Arena) -> Findings:
    """150 images of 16 MiB that decode slowly, so that they wait for their turn; each is sent until it is accepted."""
    data = post(arena.target, "/score?include=", noise_png(arena.pick(4320, 2000)), "image/png")
    until = time.monotonic() + arena.pick(40, 5)

    async def upload() -> Reply | None:
        reply = await arena.target.ask(data, 40)
        while reply is not None and reply.status == BUSY and time.monotonic() < until:
            await asyncio.sleep(0.5)
            reply = await arena.target.ask(data, 40)
        return reply

    return Findings(notes=[statuses(await asyncio.gather(*(upload() for _ in range(arena.pick(150, 40)))))])


async def _send_batches(arena: Arena) -> Findings:
    """One client that sends batches of 64 images over several connections without a pause."""
    body, content_type = multipart([image(64, seed=seed) for seed in range(64)])
    data = post(arena.target, "/score?include=", body, content_type)
    until = time.monotonic() + arena.pick(10, 2)
    replies = list[Reply | None]()

    async def client() -> None:
        while time.monotonic() < until:
            replies.append(reply := await arena.target.ask(data))
            if reply is None:
                await asyncio.sleep(0.2)

    await asyncio.gather(*(client() for _ in range(8)))
    return Findings(notes=[statuses(replies)])


async def _send_large_json(arena: Arena) -> Findings:
    """JSON with 1.6 million keys at the Open Inference Protocol."""
    keys = arena.pick(_JSON_KEYS, _JSON_KEYS // 4)
    body = b"{" + b",".join(b'"%x":1' % number for number in range(keys)) + b"}"
    data = post(arena.target, "/v2/models/mnist-5/infer", body[:_LARGEST], "application/json")
    replies = [await arena.target.ask(data) for _ in range(arena.pick(10, 3))]
    return Findings(notes=[statuses(replies)])


ATTACKS: Final = (
    Attack("bodies", _upload_many),
    Attack("batch-client", _send_batches),
    Attack("large-json", _send_large_json),
)
