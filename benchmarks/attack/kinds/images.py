"""Attacks with image files that take long to decode."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from benchmarks.attack.attack import Arena, Attack, Findings
from benchmarks.attack.kinds.image_files import (
    jpeg_with_scans,
    jpeg_with_segments,
    multipart,
    png_with_profiles,
    png_with_texts,
    rle_bmp,
)
from benchmarks.attack.kinds.uploads import statuses
from benchmarks.attack.wire import post
from benchmarks.load.clients import Reply

_SEGMENTS: Final = 200_000
_LARGEST_SEGMENTS: Final = 500_000  # 16 MB
_SCANS: Final = 100  # as many as the service accepts
_CHUNKS: Final = 15_800
_PAUSE_S: Final = 0.1
_EVENT_LOOP_BYTES: Final = 64 * 1024  # images up to this size were decoded on the event loop


async def _send_repeatedly(arena: Arena, requests: Sequence[bytes], patience_s: float) -> Findings:
    """One client per request, each of which sends it again after every answer, for some seconds."""
    until, replies = time.monotonic() + arena.pick(10, 2), list[Reply | None]()

    async def client(data: bytes) -> None:
        while time.monotonic() < until:
            replies.append(await arena.target.ask(data, patience_s))
            await asyncio.sleep(_PAUSE_S)

    await asyncio.gather(*map(client, requests))
    return Findings(notes=[statuses(replies)])


async def _jpeg_metadata(arena: Arena) -> Findings:
    """Two JPEG files of 16 MB made of small Exif segments, while honest clients send larger images."""
    data = post(arena.target, "/score", jpeg_with_segments(arena.pick(_LARGEST_SEGMENTS, _SEGMENTS // 4)), "image/jpeg")
    return await _send_repeatedly(arena, [data] * 2, arena.pick(35, 8))


async def _jpeg_scans(arena: Arena) -> Findings:
    """Progressive JPEG files whose scans take seconds, from four clients."""
    data = post(arena.target, "/score", jpeg_with_scans(_SCANS), "image/jpeg")
    return await _send_repeatedly(arena, [data] * arena.pick(4, 1), arena.pick(35, 30))


async def _png_metadata(arena: Arena) -> Findings:
    """Two PNG files of iCCP chunks and two of zTXt chunks."""
    count = arena.pick(_CHUNKS, _CHUNKS // 16)
    files = [png_with_profiles(count), png_with_texts(count)] * 2
    requests = [post(arena.target, "/score", file, "image/png") for file in files]
    return await _send_repeatedly(arena, requests, arena.pick(35, 8))


async def _small_png_metadata(arena: Arena) -> Findings:
    """The same in files that are small enough for the event loop, from four clients."""
    file = png_with_profiles(55)
    data = post(arena.target, "/score", file, "image/png")
    findings = await _send_repeatedly(arena, [data] * 4, 30)
    findings.require(len(file) < _EVENT_LOOP_BYTES, "the file is too large for the event loop")
    return findings


async def _rle_bitmaps(arena: Arena) -> Findings:
    """Four requests of 64 run-length coded bitmaps: 320 kB in all."""
    body, content_type = multipart([rle_bmp()] * arena.pick(64, 8), "a.bmp")
    data = post(arena.target, "/score?include=", body, content_type)
    return await _send_repeatedly(arena, [data] * 4, arena.pick(35, 10))


def _many_segments() -> bytes:
    return jpeg_with_segments(_SEGMENTS)


def _many_scans() -> bytes:
    return jpeg_with_scans(_SCANS)


def _many_profiles() -> bytes:
    return png_with_profiles(_CHUNKS)


ATTACKS: Final = (
    Attack("jpeg-metadata", _jpeg_metadata, worst=_many_segments),
    Attack("jpeg-scans", _jpeg_scans, worst=_many_scans),
    Attack("png-metadata", _png_metadata, worst=_many_profiles),
    Attack("png-event-loop", _small_png_metadata),
    Attack("rle-bitmaps", _rle_bitmaps, worst=rle_bmp),
)
