"""Attacks with image files that take long to decode."""

import asyncio
import time
from typing import Final

from benchmarks.attack.attack import Arena, Attack, Findings
from benchmarks.attack.kinds.image_files import (
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
_CHUNKS: Final = 15_800
_EVENT_LOOP_BYTES: Final = 64 * 1024  # images up to this size were decoded on the event loop


async def _send_images(arena: Arena, files: list[bytes], patience_s: float) -> Findings:
    requests = [post(arena.target, "/score", file, "image/png") for file in files]
    replies = await asyncio.gather(*(arena.target.ask(each, patience_s) for each in requests))
    return Findings(notes=[statuses(replies)])


async def _jpeg_metadata(arena: Arena) -> Findings:
    """Two JPEG files of 16 MB made of small Exif segments, while honest clients send larger images."""
    file = jpeg_with_segments(arena.pick(_LARGEST_SEGMENTS, _SEGMENTS // 4))
    return await _send_images(arena, [file, file], arena.pick(35, 8))


async def _png_metadata(arena: Arena) -> Findings:
    """Two PNG files of iCCP chunks and two of zTXt chunks."""
    count = arena.pick(_CHUNKS, _CHUNKS // 16)
    files = [png_with_profiles(count), png_with_texts(count)] * 2
    return await _send_images(arena, files, arena.pick(35, 8))


async def _small_png_metadata(arena: Arena) -> Findings:
    """The same in files that are small enough for the event loop, from four connections without a pause."""
    file = png_with_profiles(55)
    findings = Findings(notes=[f"{len(file)} bytes each"])
    findings.require(len(file) < _EVENT_LOOP_BYTES, "the file is too large for the event loop")
    data = post(arena.target, "/score", file, "image/png")
    until, replies = time.monotonic() + arena.pick(10, 2), list[Reply | None]()

    async def client() -> None:
        while time.monotonic() < until:
            replies.append(await arena.target.ask(data))

    await asyncio.gather(*(client() for _ in range(4)))
    findings.notes.append(statuses(replies))
    return findings


async def _rle_bitmaps(arena: Arena) -> Findings:
    """Four requests of 64 run-length coded bitmaps: 320 kB in all."""
    body, content_type = multipart([rle_bmp()] * arena.pick(64, 8), "a.bmp")
    data = post(arena.target, "/score?include=", body, content_type)
    replies = await asyncio.gather(*(arena.target.ask(data, arena.pick(35, 10)) for _ in range(4)))
    return Findings(notes=[statuses(replies)])


def _many_segments() -> bytes:
    return jpeg_with_segments(_SEGMENTS)


def _many_profiles() -> bytes:
    return png_with_profiles(_CHUNKS)


ATTACKS: Final = (
    Attack("jpeg-metadata", _jpeg_metadata, worst=_many_segments),
    Attack("png-metadata", _png_metadata, worst=_many_profiles),
    Attack("png-event-loop", _small_png_metadata),
    Attack("rle-bitmaps", _rle_bitmaps, worst=rle_bmp),
)
