"""Request bodies, read into memory within limits and with their Content-Encoding undone.

Their memory counts until the answer is sent.

Not on disk: the byte limit keeps bodies small, and containers have a read-only root.
"""

import asyncio
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.api.errors import BodyTooLarge, LabelTooLarge
from app.api.http.body.content_encoding import decoder_for
from app.inference.serving.memory import Claim

_COPIES: Final = 2  # the body as it was received, and the files in it


class BodyReader:
    """Reads request bodies.

    Args:
        max_body_bytes: size of the largest body, as it is sent and decoded.
        too_large: the error to raise for a larger one.
    """

    def __init__(self, max_body_bytes: int, too_large: type[BodyTooLarge] | type[LabelTooLarge] = BodyTooLarge) -> None:
        self.max_body_bytes = max_body_bytes
        self._too_large = too_large

    async def read_body(self, headers: Headers, receive: Receive, claim: Claim) -> bytes:
        """Reads a body and counts the bytes received; Content-Length is only used to refuse large bodies early.

        A compressed body is decoded as it arrives, and no further than to the limit. Other requests run in between.

        Raises:
            BodyTooLarge, or the error given: the body exceeds the limit, compressed or not.
            UnsupportedEncoding, MalformedEncoding: its Content-Encoding cannot be undone.
            Overloaded, TooMuchMemory: as :meth:`Claim.take`.
            ClientDisconnect: the client disconnected before the end of the body.
        """
        limit = self.max_body_bytes
        announced = headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced) > limit:
            raise self._too_large(f"the body has {announced} bytes, {limit} is the limit")
        decoder = decoder_for(headers)
        pieces: list[bytes] = []
        received, size, more = 0, 0, True
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
                if size > limit:
                    raise self._too_large(f"the decompressed body has more than {limit} bytes")
                claim.take(_COPIES * len(piece))
                pieces.append(piece)
        decoder.finish()
        return b"".join(pieces)
