"""The fast splitter for forms agrees with the parser wherever it applies."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.errors import MalformedMultipart, TooManyFiles
from app.api.http.body.uploads import Upload, _parse, _split_simple

BOUNDARY = b"abc"
MANY = 50

NAMES = st.text(st.characters(codec="utf-8", exclude_characters='"\\\r\n\0'), max_size=12)
CONTENTS = st.one_of(
    st.binary(max_size=60), st.lists(st.sampled_from([b"\r\n", b"--", BOUNDARY, b"-", b"\r", b"x"])).map(b"".join)
)


def form(parts: list[tuple[str, str | None, bytes]]) -> bytes:
    """A form as browsers write it."""
    body = b""
    for name, filename, content in parts:
        head = f'--abc\r\nContent-Disposition: form-data; name="{name}"'
        head += "" if filename is None else f'; filename="{filename}"\r\nContent-Type: image/png'
        body += head.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + b"--abc--\r\n"


@given(st.lists(st.tuples(NAMES, st.none() | NAMES, CONTENTS), min_size=1, max_size=5))
def test_simple_form_is_split_as_the_parser_does(parts: list[tuple[str, str | None, bytes]]) -> None:
    body = form(parts)
    simple = _split_simple(body, BOUNDARY, MANY)
    if any(b"\r\n--abc" in b"\r\n" + content for _, _, content in parts):
        return  # the content contains the boundary, which no client would choose
    assert simple == [Upload(name, filename or None, content) for name, filename, content in parts]
    assert simple == _parse(body, BOUNDARY, MANY)


@given(st.data())
def test_damaged_form_is_left_to_the_parser_or_split_alike(data: st.DataObject) -> None:
    body = bytearray(form([("file", "a.png", b"\x89PNG\r\n\x1a\n\0"), ("files", None, b"-")]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + 1] = data.draw(st.sampled_from([b"", b"\r", b"\n", b"-", b'"', b"\\", b";", b"\0", b"\r\n"]))
    simple = _split_simple(bytes(body), BOUNDARY, MANY)
    if simple is None:
        return
    try:
        assert simple == _parse(bytes(body), BOUNDARY, MANY)
    except MalformedMultipart:
        pytest.fail(f"split, although malformed: {bytes(body)!r}")


def test_form_of_httpx_is_simple() -> None:
    request = httpx.Request("POST", "http://a", files=[("files", (f"{n}.png", b"\x89PNG", "image/png")) for n in "ab"])
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    parts = _split_simple(request.read(), boundary, MANY)
    assert parts == [Upload("files", "a.png", b"\x89PNG"), Upload("files", "b.png", b"\x89PNG")]


@pytest.mark.parametrize(
    "body",
    [
        b"preamble\r\n" + form([("file", "a", b"x")]),
        form([("file", "a", b"x")]) + b"epilogue",
        form([("file", "a", b"x")])[:-4],
        form([("file", "a\\", b"x")]),
        form([("file", "a", b"x")]).replace(b"Content-Type", b"X-Else"),
        form([("file", "a", b"x")]).replace(b"--abc\r\n", b"--abc  \r\n"),
        b"--abc--\r\n"[:5],
        b"",
    ],
)
def test_unusual_form_is_left_to_the_parser(body: bytes) -> None:
    assert _split_simple(body, BOUNDARY, MANY) is None


def test_too_many_parts_are_left_to_the_parser() -> None:
    body = form([("file", "a", b"")] * 4)
    assert len(_split_simple(body, BOUNDARY, 4) or ()) == 4
    assert _split_simple(body, BOUNDARY, 3) is None
    with pytest.raises(TooManyFiles):
        _parse(body, BOUNDARY, 3)
