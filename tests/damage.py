"""Random damage to image files, at any byte or at fields of their formats."""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from hypothesis import strategies as st

from tests.hostile import PNG, chunk

_INTERESTING: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@st.composite
def damaged(draw: st.DrawFn, files: Sequence[bytes]) -> bytes:
    """One of the files with one to four changes, at random bytes or at fields of the format."""
    data = draw(st.sampled_from(files))
    if draw(st.integers(0, 9)) == 0:  # the beginning of one file and the end of another
        other = draw(st.sampled_from(files))
        data = data[: draw(st.integers(0, len(data)))] + other[draw(st.integers(0, len(other))) :]
    for _ in range(draw(st.integers(1, 4))):
        # Half of the changes are in the header.
        end = len(data) if draw(st.booleans()) else min(len(data), 96)
        if end:
            change = draw(
                st.sampled_from((_flip, _set, _set_number, _delete, _insert, _repeat, _truncate, _change_structure))
            )
            data = change(draw, data, draw(st.integers(0, end - 1)))
        else:
            data = draw(st.sampled_from(files))
    return data


def _put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _flip(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return _put(data, at, bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]))


def _set(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return _put(data, at, bytes([draw(st.integers(0, 255))]))


def _set_number(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    """Sets lengths, sizes and offsets to boundary values of their types."""
    width = draw(st.sampled_from((2, 4)))
    value = draw(st.sampled_from(_INTERESTING)) & (2 ** (8 * width) - 1)
    return _put(data, at, value.to_bytes(width, "little" if draw(st.booleans()) else "big"))


def _delete(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return data[:at] + data[at + draw(st.integers(1, 64)) :]


def _insert(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return data[:at] + draw(st.binary(min_size=1, max_size=32)) + data[at:]


def _repeat(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return data[:at] + data[at : at + draw(st.integers(1, 64))] * draw(st.integers(2, 20)) + data[at:]


def _truncate(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return data[:at]


def _change_structure(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    """A change that keeps checksums and framing valid, so that it is not detected by them."""
    if data.startswith(PNG):
        return PNG + b"".join(chunk(*each) for each in _with_changed_chunks(draw, list(_png_chunks(data))))
    if data[:4] in {b"II*\0", b"MM\0*"} and len(data) > 22:
        return _with_changed_tag(draw, data)
    return data


def _with_changed_chunks(draw: st.DrawFn, chunks: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    if not chunks:
        return chunks
    one, other = (draw(st.integers(0, len(chunks) - 1)) for _ in range(2))
    match draw(st.sampled_from(("swap", "drop", "duplicate", "edit"))):
        case "swap":
            chunks[one], chunks[other] = chunks[other], chunks[one]
        case "drop":
            del chunks[one]
        case "duplicate":
            chunks.insert(other, chunks[one])
        case "edit":
            chunk_type, body = chunks[one]
            chunks[one] = chunk_type, _put(body, draw(st.integers(0, len(body))), bytes([draw(st.integers(0, 255))]))
    return chunks


def _with_changed_tag(draw: st.DrawFn, data: bytes) -> bytes:
    """Changes the tag, type, count or value of one entry of the first TIFF directory."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    first = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[first : first + 2], order)
    entry = first + 2 + 12 * draw(st.integers(0, max(0, min(count, 64) - 1)))
    if entry + 12 > len(data):
        return data
    field, size = draw(st.sampled_from(((0, 2), (2, 2), (4, 4), (8, 4))))
    value = draw(st.one_of(st.sampled_from(_INTERESTING), st.integers(0, 400))) & (2 ** (8 * size) - 1)
    return _put(data, entry + field, value.to_bytes(size, order))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length
