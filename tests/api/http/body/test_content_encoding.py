"""Compressed request bodies: gzip and deflate, their limits, and what is refused."""

import asyncio
import contextlib
import gzip
import time
import zlib
from collections.abc import Iterator

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from app.api.errors import BodyTooLarge, MalformedEncoding, UnsupportedEncoding
from app.api.http.body.content_encoding import Identity, decoder_for
from app.api.http.body.reading import BodyReader
from app.inference.errors import Overloaded
from app.inference.serving.memory import Claim, Memory
from tests.support import Server, encode, gradient

PNG = encode(gradient())
LIMIT = 2**20  # of the session's server


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def decoded(coding: str, body: bytes, step: int = 2**16) -> bytes:
    decoder = decoder_for(Headers({"Content-Encoding": coding}))
    assert decoder is not None
    content = b"".join(piece for at in range(0, len(body), step) for piece in decoder.pieces(body[at : at + step]))
    decoder.finish()
    return content


FORMATS = [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate), ("X-GZip", gzip.compress)]


@pytest.mark.parametrize("step", [1, 7, 2**20])
@pytest.mark.parametrize("data", [b"", b"x", PNG, bytes(10**6)], ids=len)
@pytest.mark.parametrize(("coding", "compress"), FORMATS, ids=["gzip", "zlib", "raw", "x-gzip"])
def test_every_format_is_decoded_whatever_its_chunks(coding: str, compress: object, data: bytes, step: int) -> None:
    assert callable(compress)
    assert decoded(coding, compress(data), step) == data


def test_gzip_members_are_joined() -> None:
    assert decoded("gzip", gzip.compress(PNG[:9]) + gzip.compress(b"") + gzip.compress(PNG[9:])) == PNG


@pytest.mark.parametrize("sent", ["", "identity", "Identity, "])
def test_identity_is_no_coding(sent: str) -> None:
    assert isinstance(decoder_for(Headers({"Content-Encoding": sent})), Identity)


@pytest.mark.parametrize("sent", ["br", "zstd", "gzip, gzip", "x" * 500])
def test_other_codings_are_refused_with_those_accepted(sent: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="send gzip or deflate") as refused:
        decoder_for(Headers({"Content-Encoding": sent}))
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", PNG),
        ("gzip", b""),
        ("gzip", gzip.compress(PNG)[:-1]),
        ("gzip", gzip.compress(PNG)[:-8] + bytes(8)),  # the check sum
        ("gzip", gzip.compress(PNG) + b"more"),
        ("deflate", b"x"),
        ("deflate", zlib.compress(PNG)[:-5]),
        ("deflate", zlib.compress(PNG) + b"x"),
        ("deflate", raw_deflate(PNG) + b"x"),
    ],
    ids=range(9),
)
def test_broken_data_are_malformed(coding: str, body: bytes) -> None:
    with pytest.raises(MalformedEncoding):
        decoded(coding, body)


class Reading:
    """Reads a body that arrives in the given chunks, and counts how many were taken."""

    def __init__(self, reader: BodyReader, *chunks: bytes, claim: Claim | None = None, coding: str = "gzip") -> None:
        self.taken = 0
        self._claim = Memory(2**24).claim("a") if claim is None else claim
        self._chunks = chunks
        self._reader = reader
        self._headers = Headers({"Content-Encoding": coding})

    async def receive(self) -> Message:
        self.taken += 1
        more = self.taken < len(self._chunks)
        return {"type": "http.request", "body": self._chunks[self.taken - 1], "more_body": more}

    async def run(self) -> bytes:
        return await self._reader.read_body(self._headers, self.receive, self._claim)


def bomb(size: int, chunk: int = 2**16) -> Iterator[bytes]:
    body = gzip.compress(bytes(size))
    yield from (body[at : at + chunk] for at in range(0, len(body), chunk))


def test_bomb_is_not_read_beyond_the_limit() -> None:
    memory = Memory(LIMIT)
    reading = Reading(BodyReader(LIMIT), *bomb(400 * LIMIT, chunk=1024), claim=memory.claim("a"))
    with pytest.raises(BodyTooLarge, match="decompressed body has more than 1048576 bytes"):
        asyncio.run(reading.run())
    assert reading.taken <= 3  # a megabyte of zeros has a kilobyte
    assert memory.requests <= 2 * LIMIT


def test_received_bytes_are_limited_too() -> None:
    """Empty blocks and members have no output."""
    members = gzip.compress(b"") * 20
    with pytest.raises(BodyTooLarge, match="body has more than 300 bytes"):
        asyncio.run(Reading(BodyReader(300), members).run())


def test_decompressed_bytes_count_as_memory_until_the_claim_is_released() -> None:
    memory = Memory(LIMIT)
    claims = [memory.claim(f"client {number}") for number in range(20)]
    body = gzip.compress(bytes(LIMIT - 1))

    async def read(claim: Claim) -> bytes:
        return await Reading(BodyReader(LIMIT), body, claim=claim).run()

    assert len(asyncio.run(read(claims[0]))) == LIMIT - 1
    assert memory.requests == claims[0].amount == 2 * (LIMIT - 1)
    for claim in claims[1:]:
        with contextlib.suppress(Overloaded):
            asyncio.run(read(claim))
    assert 2 < sum(claim.amount > LIMIT for claim in claims) < 8
    for claim in claims:
        claim.release()
    assert memory.requests == 0
    asyncio.run(read(claims[0]))


@pytest.mark.parametrize("body", [gzip.compress(bytes(2**24)), gzip.compress(b"") * 50_000], ids=["zeros", "members"])
def test_decompression_lets_other_work_run(body: bytes) -> None:
    async def longest_pause() -> float:
        reading = asyncio.create_task(Reading(BodyReader(2**24), body).run())
        longest, before = 0.0, time.thread_time()
        while not reading.done():
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, before = max(longest, now - before), now
        await reading
        return longest

    assert asyncio.run(longest_pause()) < 0.05  # the join of 16 MiB at the end included


def post(server: Server, body: bytes, coding: str, path: str = "/score?include=", **headers: str) -> httpx.Response:
    headers = {"Content-Type": "image/png", "Content-Encoding": coding, **headers}
    return server.client.post(path, content=body, headers=headers)


def test_compressed_uploads_score_as_plain_ones(server: Server) -> None:
    plain = server.client.post("/score?include=", content=PNG, headers={"Content-Type": "image/png"}).json()
    for coding, compress in FORMATS:
        response = post(server, compress(PNG), coding)  # type: ignore[operator]
        assert response.status_code == 200, response.text
        assert response.json() == plain
    request = server.client.build_request("POST", "/score?include=", files={"file": ("a.png", PNG)})
    headers = {"Content-Type": request.headers["Content-Type"], "Content-Encoding": "gzip"}
    form = server.client.post("/score?include=", content=gzip.compress(request.read()), headers=headers).json()
    assert form["results"][0] == {**plain["results"][0], "filename": "a.png"}


@pytest.mark.parametrize(
    ("coding", "body", "status", "detail"),
    [
        ("br", PNG, 415, "send gzip or deflate"),
        ("gzip, gzip", gzip.compress(gzip.compress(PNG)), 415, "send gzip or deflate"),
        ("gzip", PNG, 400, "not valid gzip data"),
        ("gzip", gzip.compress(PNG)[:-9], 400, "ends before the end of its gzip data"),
        ("deflate", b"\0" * 40, 400, "deflate data"),
        ("gzip", gzip.compress(bytes(100 * LIMIT)), 413, "ANOMALY_MAX_BODY_BYTES"),
    ],
    ids=["br", "twice", "no-gzip", "cut", "no-deflate", "bomb"],
)
@pytest.mark.parametrize("path", ["/score", "/v2/models/digits-5/infer"], ids=["score", "v2"])
def test_undecodable_uploads_are_refused(
    server: Server, path: str, coding: str, body: bytes, status: int, detail: str
) -> None:
    response = post(server, body, coding, path)
    assert response.status_code == status
    assert detail in response.json()["error" if path.startswith("/v2") else "detail"]
    assert response.headers.get("Accept-Encoding") == ("gzip, deflate" if status == 415 else None)
