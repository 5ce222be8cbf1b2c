"""File names in Content-Disposition headers, in the forms that clients use for names beyond ASCII."""

import re
from email.errors import HeaderParseError
from email.header import decode_header
from typing import Final
from urllib.parse import unquote_to_bytes

from python_multipart.multipart import parse_options_header

_MAX_DECODED: Final = 4096  # some of Python's decoders take seconds for long texts

_EXTENDED: Final = re.compile(
    rb""";[ \t]*(?P<name>[^\s;="]+)[ \t]*=[ \t]*(?P<value>"(?:[^"\\]|\\.)*"|[^;]*)""", re.DOTALL
)
# Spaces between two encoded words do not belong to the text (RFC 2047, section 6.2).
_ENCODED_WORD: Final = re.compile(r"(=\?[^?\s]+\?[bBqQ]\?[^?\s]*\?=)(?:[ \t]+(?==\?[^?\s]+\?[bBqQ]\?[^?\s]*\?=))?")


def filename_of(disposition: bytes) -> str | None:
    """The file name of a Content-Disposition header; None if it has none.

    ``filename*`` (RFC 8187) takes precedence over ``filename`` (RFC 6266, section 4.3), unless it cannot be decoded.
    """
    if b"*" in disposition and len(disposition) <= _MAX_DECODED:
        for parameter in _EXTENDED.finditer(disposition):
            if parameter["name"].lower() == b"filename*" and (name := _extended(parameter["value"])):
                return name
    _, options = parse_options_header(disposition)
    return readable(options.get(b"filename", b""))


def readable(filename: bytes) -> str | None:
    """The text of a ``filename`` parameter: UTF-8, or encoded words (RFC 2047); None if it is empty."""
    text = filename.decode("utf-8", "replace")
    if "=?" in text and len(text) <= _MAX_DECODED:
        text = _ENCODED_WORD.sub(lambda word: _decoded_word(word[1]), text)
    return text or None


def _extended(value: bytes) -> str | None:
    """The text of ``UTF-8'en'na%C3%AFve.png``; None if it has another form or cannot be decoded."""
    charset, _, rest = value.strip().strip(b'"').partition(b"'")
    language, mark, encoded = rest.partition(b"'")
    del language
    if not mark:
        return None
    try:
        return unquote_to_bytes(encoded).decode(charset.decode("ascii"))
    except (LookupError, ValueError):  # an unknown charset, or bytes that it does not have
        return None


def _decoded_word(word: str) -> str:
    """The text of an encoded word; the word itself if it cannot be decoded."""
    try:
        ((text, charset),) = decode_header(word)
        return text.decode(charset or "ascii") if isinstance(text, bytes) else text
    except (LookupError, ValueError, HeaderParseError):
        return word
