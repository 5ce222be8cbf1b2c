"""Request bodies, read into memory within limits and with their Content-Encoding undone.

Not on disk: the byte limit keeps bodies small, and containers have a read-only root.
"""

import asyncio
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.api.errors import BodyTooLarge, LabelTooLarge
from app.api.http.content_encoding import decoder_for
from app.inference.errors import Overloaded

_SIMULTANEOUS_BODIES: Final = 16  # of the largest size, or many more small ones


class BodyReader:
    """Reads request bodies within a memory budget for the whole process.

    Without the budget, many slow uploads could fill the memory, even if each body is small.

    Args:
        max_body_bytes: size of the largest body, as it is sent and decoded. The budget is 16 times that.
        too_large: the error to raise for a larger one.
    """

    def __init__(self, max_body_bytes: int, too_large: type[BodyTooLarge] | type[LabelTooLarge] = BodyTooLarge) -> None:
        self.max_body_bytes = max_body_bytes
        self.budget = _SIMULTANEOUS_BODIES * max_body_bytes
        self._too_large = too_large

    async def read_body(self, headers: Headers, receive: Receive) -> bytes:
        """Reads a body and counts the bytes received; Content-Length is only used to refuse large bodies early.

        A compressed body is decoded as it arrives, and no further than to the limit. Other requests run in between.

        Raises:
            BodyTooLarge, or the error given: the body exceeds the limit, compressed or not.
            UnsupportedEncoding, MalformedEncoding: its Content-Encoding cannot be undone.
            Overloaded: all bodies together exceed the budget.
            ClientDisconnect: the client disconnected before the end of the body.
        """
        limit = self.max_body_bytes
        announced = headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced) > limit:
            raise self._too_large(f"the body has {announced} bytes, {limit} is the limit")
        decoder = decoder_for(headers)
        pieces: list[bytes] = []
        received, size, more = 0, 0, True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = message.get("body", b"")
                more = message.get("more_body", False)
                received += len(chunk)
                if received > limit:
                    raise self._too_large(f"the body has more than {limit} bytes")
                for number, piece in enumerate(decoder.pieces(chunk)):
                    if number:
                        await asyncio.sleep(0)  # lets other requests run between the pieces of a chunk
                    size += len(piece)
                    self.budget -= len(piece)
                    if size > limit:
                        raise self._too_large(f"the decompressed body has more than {limit} bytes")
                    if self.budget < 0:
                        raise Overloaded("too many simultaneous uploads")
                    pieces.append(piece)
            decoder.finish()
            return b"".join(pieces)
        finally:
            self.budget += size
