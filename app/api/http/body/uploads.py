"""Request body → image files, within limits on bytes and files."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.types import Receive

from app.api.errors import MalformedMultipart, NoImage, TooManyFiles, UnsupportedMediaType
from app.api.http.body.filenames import filename_of, readable
from app.api.http.body.json_images import EncodedImage, decode_base64, parse_images
from app.api.http.body.reading import BodyReader
from app.inference.errors import UnreadableImage
from app.inference.serving.memory import Claim

FIELDS: Final = ("file", "files")

_FORM: Final = b"multipart/form-data"
_JSON: Final = b"application/json"
_BYTES: Final = b"application/octet-stream"
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
        field: name of the form field; empty outside forms.
        filename: as sent by the client; None if it sent none.
        data: content of the file.
        error: the reason if the content could not be decoded; ``data`` is then empty.
    """

    field: str
    filename: str | None
    data: bytes
    error: UnreadableImage | None = None


async def read_uploads(
    headers: Headers, receive: Receive, reader: BodyReader, claim: Claim, max_files: int
) -> list[Upload]:
    """Reads the file parts of a form, the images of a JSON body, or a raw image body.

    Args:
        headers: of the request.
        receive: ASGI channel of the request.
        reader: reads the body.
        claim: the request's memory.
        max_files: most image files in one request.

    Raises:
        UnsupportedMediaType, MalformedMultipart, MalformedJson, TooManyFiles, NoImage: see ``app.api.errors``.
        BodyTooLarge, UnsupportedEncoding, MalformedEncoding, Overloaded, TooMuchMemory, ClientDisconnect: as
            :meth:`BodyReader.read_body`.
    """
    media_type, parameters = _content_type(headers.get("content-type"))
    is_raw = media_type == _BYTES or media_type.startswith(b"image/")
    if media_type and not is_raw and media_type not in {_FORM, _JSON}:
        raise UnsupportedMediaType(
            "send multipart/form-data, application/json, or the image as an image/* or application/octet-stream body, "
            f"not {media_type.decode('latin-1')[:100]}"
        )
    body = await reader.read_body(headers, receive, claim)
    if media_type == _FORM:
        return _form_files(body, parameters.get(b"boundary"), max_files)
    if not body:
        raise NoImage("the request has no body")
    if media_type == _JSON:
        claim.take(len(body))  # the texts, besides the body and the files
        return _json_files(parse_images(body), max_files)
    if not media_type:
        raise UnsupportedMediaType(
            "the request has no Content-Type; send the one of the image, such as image/png, or application/octet-stream"
        )
    disposition = headers.get("content-disposition", "").encode("latin-1")
    return [Upload("", filename_of(disposition), body)]


def _json_files(images: Sequence[EncodedImage], max_files: int) -> list[Upload]:
    """Decodes the images of a JSON body. One that is not valid base64 has an error, and the others are scored.

    Raises:
        TooManyFiles, NoImage: see ``app.api.errors``.
    """
    if not images:
        raise NoImage("the list of images is empty")
    _require_few(len(images), max_files)
    uploads = []
    for image in images:
        try:
            uploads.append(Upload("", image.filename, decode_base64(image.data)))
        except UnreadableImage as error:
            uploads.append(Upload("", image.filename, b"", error))
    return uploads


def _form_files(body: bytes, boundary: bytes | None, max_files: int) -> list[Upload]:
    """The image files of a form.

    Raises:
        MalformedMultipart, TooManyFiles, NoImage: see ``app.api.errors``.
    """
    if not boundary:
        raise MalformedMultipart("the Content-Type has no boundary")
    max_parts = 2 * max_files + _OTHER_FIELDS
    parts = _split_simple(body, boundary, max_parts)
    return _uploads(_parse(body, boundary, max_parts) if parts is None else parts, max_files)


def _uploads(parts: Sequence[Upload], max_files: int) -> list[Upload]:
    """The image files among the parts of a form.

    Raises:
        TooManyFiles, NoImage: see ``app.api.errors``.
    """
    # A browser's file input without a chosen file sends a part with neither name nor content.
    files = [part for part in parts if part.field in FIELDS and (part.data or part.filename)]
    _require_few(len(files), max_files)
    if not files:
        others = sorted({repr(part.field[:40]) for part in parts if part.field not in FIELDS})
        found = f"; it has {', '.join(others)}" if others else ""
        raise NoImage(f"the form has no file part named {' or '.join(FIELDS)}{found}")
    return files


def _require_few(files: int, max_files: int) -> None:
    if files > max_files:
        raise TooManyFiles(f"one request may carry {max_files} files, this one has {files}")


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
        parts.append(Upload(_text(name), readable(filename or b""), piece[head.end() :]))
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
        name = _text(options.get(b"name", b""))
        self.parts.append(Upload(name, filename_of(self._disposition), b"".join(self._pieces)))

    def end(self) -> None:
        self.complete = True


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
