"""Request body → image files, within limits on bytes and files.

Bodies are held in memory and not on disk: the byte limit keeps them small, and containers have a read-only root.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.api.errors import BodyTooLarge, MalformedMultipart, NoImage, TooManyFiles, UnsupportedMediaType
from app.inference.errors import Overloaded

FIELDS: Final = ("file", "files")

_SIMULTANEOUS_BODIES: Final = 16  # of the largest size, or many more small ones
_OTHER_FIELDS: Final = 16  # form fields allowed in addition to the images

_SIMPLE_HEAD: Final = re.compile(
    rb'\r\nContent-Disposition: form-data; name="([^"\\\r\n]*)"(?:; filename="([^"\\\r\n]*)")?\r\n'
    rb"(?:Content-Type: [\x20-\x7e]*\r\n)?\r\n",
    re.IGNORECASE,
)


_content_type = lru_cache(maxsize=256)(parse_options_header)  # most requests repeat one of a few types


class Upload(NamedTuple):
    """One uploaded image file.

    Attributes:
        field: name of the form field; empty for a raw body.
        filename: as sent by the client; None if it sent none.
        data: content of the file.
    """

    field: str
    filename: str | None
    data: bytes


class BodyReader:
    """Reads request bodies within a memory budget for the whole process.

    Without the budget, many slow uploads could fill the memory, even if each body is small.

    Args:
        max_body_bytes: size of the largest body. The budget is 16 times that.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self.budget = _SIMULTANEOUS_BODIES * max_body_bytes

    async def read_body(self, headers: Headers, receive: Receive) -> bytes:
        """Reads a body and counts the bytes received; Content-Length is only used to refuse large bodies early.

        Raises:
            BodyTooLarge: the body exceeds the limit.
            Overloaded: all bodies together exceed the budget.
            ClientDisconnect: the client disconnected before the end of the body.
        """
        limit = self.max_body_bytes
        announced = headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced) > limit:
            raise BodyTooLarge(f"the body has {announced} bytes, {limit} is the limit")
        chunks: list[bytes] = []
        size, more = 0, True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(chunk)
                self.budget -= len(chunk)
                if size > limit:
                    raise BodyTooLarge(f"the body has more than {limit} bytes")
                if self.budget < 0:
                    raise Overloaded("too many simultaneous uploads")
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            self.budget += size


async def read_uploads(headers: Headers, receive: Receive, reader: BodyReader, max_files: int) -> list[Upload]:
    """Reads the file parts of a multipart body, or a raw image body.

    Args:
        headers: of the request.
        receive: ASGI channel of the request.
        reader: reads the body.
        max_files: most image files in one request.

    Raises:
        UnsupportedMediaType, MalformedMultipart, TooManyFiles, NoImage: see ``app.api.errors``.
        BodyTooLarge, Overloaded, ClientDisconnect: as :meth:`BodyReader.read_body`.
    """
    media_type, parameters = _content_type(headers.get("content-type"))
    is_multipart = media_type == b"multipart/form-data"
    if media_type and not is_multipart and not media_type.startswith(b"image/"):
        raise UnsupportedMediaType(
            f"send multipart/form-data or an image/* body, not {media_type.decode('latin-1')[:100]}"
        )
    body = await reader.read_body(headers, receive)
    if is_multipart:
        boundary = parameters.get(b"boundary")
        if not boundary:
            raise MalformedMultipart("the Content-Type has no boundary")
        max_parts = 2 * max_files + _OTHER_FIELDS
        parts = _split_simple(body, boundary, max_parts)
        if parts is None:
            parts = _parse(body, boundary, max_parts)
        return _uploads(parts, max_files)
    if not body:
        raise NoImage("the request has no body")
    if not media_type:
        raise UnsupportedMediaType("the request has no Content-Type; send the one of the image, such as image/png")
    return [Upload("", None, body)]


def _uploads(parts: Sequence[Upload], max_files: int) -> list[Upload]:
    """The image files among the parts of a form.

    Raises:
        TooManyFiles, NoImage: see ``app.api.errors``.
    """
    # A browser's file input without a chosen file sends a part with neither name nor content.
    files = [part for part in parts if part.field in FIELDS and (part.data or part.filename)]
    if len(files) > max_files:
        raise TooManyFiles(f"one request may carry {max_files} files, this one has {len(files)}")
    if not files:
        others = sorted({repr(part.field[:40]) for part in parts if part.field not in FIELDS})
        found = f"; it has {', '.join(others)}" if others else ""
        raise NoImage(f"the form has no file part named {' or '.join(FIELDS)}{found}")
    return files


def _split_simple(body: bytes, boundary: bytes, max_parts: int) -> list[Upload] | None:
    """Splits a form written as nearly all clients write it, in a tenth of the parser's time.

    Returns:
        The parts; None if the form is written in another way and must be parsed.
    """
    delimiter = b"\r\n--" + boundary
    preamble, *pieces = (b"\r\n" + body).split(delimiter, max_parts + 1)
    if preamble or not pieces or pieces.pop() not in {b"--\r\n", b"--"}:
        return None
    parts = []
    for piece in pieces:
        head = _SIMPLE_HEAD.match(piece)
        if head is None:
            return None
        name, filename = head.groups()
        parts.append(Upload(_text(name), _text(filename) if filename else None, piece[head.end() :]))
    return parts


def _parse(body: bytes, boundary: bytes, max_parts: int) -> list[Upload]:
    """Parses any multipart/form-data body.

    Raises:
        MalformedMultipart: the body does not parse.
        TooManyFiles: more than ``max_parts`` parts.
    """
    form = _Form(max_parts)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.begin_part,
                "on_header_field": form.header_name,
                "on_header_value": form.header_value,
                "on_header_end": form.end_header,
                "on_part_data": form.content,
                "on_part_end": form.end_part,
                "on_end": form.end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MalformedMultipart(f"the multipart body does not parse: {error}") from error
    if not form.complete:
        raise MalformedMultipart("the multipart body ends before its closing boundary")
    return form.parts


class _Form:
    """Callbacks for the parser, which collect the parts. Names, values and contents can arrive in several slices."""

    def __init__(self, max_parts: int) -> None:
        self.max_parts = max_parts
        self.parts: list[Upload] = []
        self.complete = False
        self._begun = 0
        self._reset()

    def _reset(self) -> None:
        self._name = self._value = self._disposition = b""
        self._pieces: list[bytes] = []

    def begin_part(self) -> None:
        self._begun += 1
        if self._begun > self.max_parts:
            raise TooManyFiles(f"the form has more than {self.max_parts} parts")
        self._reset()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def content(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def end_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        filename = options.get(b"filename")
        name = _text(options.get(b"name", b""))
        self.parts.append(Upload(name, _text(filename) if filename else None, b"".join(self._pieces)))

    def end(self) -> None:
        self.complete = True


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
