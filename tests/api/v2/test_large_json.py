"""JSON of many members or values: limited before it is parsed, and parsed outside the event loop."""

import asyncio
import json
from typing import Any

import pytest
from starlette.datastructures import Headers

from app.api.errors import InvalidInference
from app.api.v2 import routes
from app.api.v2.tensors import JSON_LENGTH_HEADER, parsed_bytes, read_request
from benchmarks.load.clients import crowd, get, post
from tests.support import SPEC, Server


def refused(body: bytes) -> str:
    with pytest.raises(InvalidInference) as error:
        read_request(Headers({}), body, SPEC, 8)
    return str(error.value)


def test_members_that_nobody_reads_are_refused_before_parsing() -> None:
    """1.6 million keys took seconds on the event loop."""
    keys = ",".join(f'"k{number}":0' for number in range(3000))
    assert "more values than" in refused(f'{{"parameters":{{{keys}}},"inputs":[]}}'.encode())
    keys = ",".join(f'"k{number}":0' for number in range(1400))
    assert "more members than" in refused(f'{{"parameters":{{{keys}}},"inputs":[]}}'.encode())


def test_values_beyond_the_images_are_refused_before_parsing() -> None:
    body = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 8, 8], "data": [0] * 2000}]}
    assert "more values than" in refused(json.dumps(body).encode())


def test_memory_of_parsed_json_counts_its_values_and_not_what_follows() -> None:
    assert parsed_bytes(Headers({}), b"[0,0,0]") > 3 * 32
    assert parsed_bytes(Headers({JSON_LENGTH_HEADER: "2"}), b"{}" + b"," * 1000) == 2


def test_large_bodies_are_read_in_a_thread(server: Server) -> None:
    body: dict[str, Any] = {
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [8, 1, 8, 8], "data": [0.123456789012345] * 512}]
    }
    text = json.dumps(body).encode()
    text += b" " * (routes._SMALL_BODY_BYTES + 1 - len(text))

    async def both() -> None:
        infer = [post(text, path="/v2/models/digits-5/infer", content_type="application/json")]
        large, small = await asyncio.gather(
            crowd(server.port, infer, connections=2, seconds=1),
            crowd(server.port, [get("/health/live")], connections=1, seconds=1),
        )
        assert large.statuses().keys() == {200}
        assert small.statuses().keys() == {200}

    asyncio.run(both())
