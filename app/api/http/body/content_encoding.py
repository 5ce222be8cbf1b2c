"""Content-Encoding of request bodies (RFC 9110, section 8.4): gzip and deflate, undone piece by piece."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from starlette.datastructures import Headers

from app.api.errors import MalformedEncoding, UnsupportedEncoding

ACCEPTED: Final = ("gzip", "deflate")

_CODINGS: Final = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 31, 15, -15

# Output and input of one call. A megabyte of zeros has a kilobyte, and a slice can hold hundreds of gzip members.
_PIECE_BYTES: Final = 256 * 1024
_SLICE_BYTES: Final = 16 * 1024


class Decoder(Protocol):
    """Undoes the Content-Encoding of one body."""

    def pieces(self, chunk: bytes) -> Iterable[bytes]:
        """The decoded bytes of the next part of a body, in pieces, which may be empty.

        Raises:
            MalformedEncoding: the body is not valid, or goes on after its end.
        """

    def finish(self) -> None:
        """Checks that the body was complete.

        Raises:
            MalformedEncoding: it was not.
        """


class Identity:
    """Of a body that is sent as it is."""

    def pieces(self, chunk: bytes) -> Iterable[bytes]:
        """The chunk, unchanged."""
        return (chunk,)

    def finish(self) -> None:
        """Any body is complete."""


class Inflater:
    """Undoes gzip or deflate.

    Args:
        coding: ``gzip``, of one or more members (RFC 1952), or ``deflate``, which by the standard is zlib data
            (RFC 1950) and by some clients raw deflate data (RFC 1951).
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._stream = zlib.decompressobj(_GZIP_BITS) if coding == "gzip" else None
        self._head = b""  # of deflate data: its first bytes tell which of the two formats it has

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """See :class:`Decoder`; pieces have at most 256 KiB."""
        for start in range(0, len(chunk), _SLICE_BYTES):
            yield from self._inflate(chunk[start : start + _SLICE_BYTES])

    def finish(self) -> None:
        """See :class:`Decoder`."""
        complete = self._stream is not None and self._stream.eof
        if not complete:
            raise MalformedEncoding(f"the body ends before the end of its {self._coding} data")

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        stream = self._stream
        if stream is None:
            self._head = data = self._head + data
            if len(data) < len(b"\x78\x9c"):
                return
            stream = self._stream = zlib.decompressobj(_ZLIB_BITS if _is_zlib(data) else _RAW_BITS)
        full = False  # the stream may hold further output
        while data or full:
            if stream.eof:
                stream = self._stream = self._next_member()
            try:
                piece = stream.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                reason = str(error).rpartition(": ")[2]
                raise MalformedEncoding(f"the body is not valid {self._coding} data: {reason}") from error
            yield piece
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
            full = len(piece) == _PIECE_BYTES and not stream.eof

    def _next_member(self) -> "zlib._Decompress":
        if self._coding != "gzip":
            raise MalformedEncoding(f"the body goes on after the end of its {self._coding} data")
        return zlib.decompressobj(_GZIP_BITS)


def decoder_for(headers: Headers) -> Decoder:
    """The decoder of a request's body.

    Raises:
        UnsupportedEncoding: for another coding, and for several.
    """
    sent = ",".join(headers.getlist("content-encoding"))
    codings = [each for each in map(str.strip, sent.lower().split(",")) if each not in {"", "identity"}]
    if not codings:
        return Identity()
    if len(codings) > 1 or codings[0] not in _CODINGS:
        raise UnsupportedEncoding(
            f"the Content-Encoding {', '.join(codings)[:100]} is not supported; send {' or '.join(ACCEPTED)}, "
            f"or the body as it is"
        )
    return Inflater(_CODINGS[codings[0]])


def _is_zlib(head: bytes) -> bool:
    """Whether data begin with zlib's header: method 8, and a check sum of the first two bytes."""
    return head[0] & 0x0F == zlib.DEFLATED and int.from_bytes(head[:2]) % 31 == 0
