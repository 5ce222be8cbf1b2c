"""Untrusted images, tensors and forms."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.schemas.scoring import ScoreAnswer
from tests import damage, hostile, process_memory
from tests.api.fuzz.conftest import (
    CORPUS,
    MAX_BODY_BYTES,
    MIB,
    SEEDS,
    VALID_PNG,
    Target,
    checked,
    examples,
    short_id,
)

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process


class TestImages:
    @examples(250)
    @given(damage.damaged(list(SEEDS.values())))
    def test_damaged_images(self, target: Target, data: bytes) -> None:
        began = time.perf_counter()
        response = target.server.client.post(
            "/score?include=reconstruction,error_map", content=data or b"x", headers={"Content-Type": "image/x"}
        )
        assert checked(response).status_code in {200, 413, 422}
        assert time.perf_counter() - began < 5

    @examples(60)
    @given(st.lists(damage.damaged(list(SEEDS.values())), min_size=1, max_size=7))
    def test_damaged_image_does_not_affect_others(self, target: Target, files: list[bytes]) -> None:
        parts = [("file", ("valid.png", VALID_PNG)), *(("file", ("x", data)) for data in files)]
        answer = checked(target.server.client.post("/score?include=", files=parts))
        assert answer.status_code == 200
        results = ScoreAnswer.model_validate_json(answer.content).results
        assert len(results) == len(parts)
        assert results[0].status == "scored"
        assert results[0].score == target.score

    @pytest.mark.parametrize("name", CORPUS)
    def test_hostile_images(self, target: Target, name: str) -> None:
        began = time.perf_counter()
        process_memory.forget_peak(target.server.process.pid)
        before = process_memory.resident_bytes(target.server.process.pid)
        response = target.server.client.post("/score", files={"file": (name, CORPUS[name])})
        assert checked(response).status_code in {200, 413, 422}
        assert time.perf_counter() - began < 5
        assert process_memory.peak_bytes(target.server.process.pid) - before < 150 * MIB

    def test_simultaneous_hostile_images(self, target: Target) -> None:
        """Memory does not grow, and requests beyond the limit get 429."""
        names = ("png-deep-bomb", "tiff-tile-bomb", "gif-comments", "jpeg-scans", "png-text-bombs", "bmp-rle-rows")

        def send(name: str) -> int:
            return checked(target.server.client.post("/score", files={"file": CORPUS[name]})).status_code

        def send_all() -> int:
            with ThreadPoolExecutor(12) as pool:
                assert set(pool.map(send, names * 4)) <= {200, 413, 422, 429}
            return process_memory.resident_bytes(target.server.process.pid)

        first = send_all()
        assert send_all() - first < 100 * MIB


PIXELS = bytes(range(64))
TENSOR: dict[str, Any] = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "UINT8"}
BINARY = json.dumps({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 64}}]}).encode()


class TestTensors:
    @examples(300)
    @given(damage.damaged([json.dumps({"inputs": [{**TENSOR, "data": list(PIXELS)}]}).encode(), BINARY + PIXELS]))
    def test_damaged_tensors(self, target: Target, body: bytes) -> None:
        for headers in ({}, {"Inference-Header-Content-Length": str(len(BINARY))}):
            response = target.server.client.post("/v2/models/m/infer", content=body, headers=headers)
            assert response.status_code in {200, 400, 413}
            if response.status_code != 200:
                assert list(response.json()) == ["error"]

    @pytest.mark.parametrize("data", [b"[0]", b"0", b"[[]]", b"{}", b"0.5", b"1e999", b"[" * 900 + b"]" * 900])
    def test_json_of_the_largest_size(self, target: Target, data: bytes) -> None:
        head = json.dumps({"inputs": [TENSOR]}).encode().removesuffix(b"}]}") + b', "data": ['
        count = (MAX_BODY_BYTES - len(head) - 4) // (len(data) + 1)
        process_memory.forget_peak(target.server.process.pid)
        before = process_memory.resident_bytes(target.server.process.pid)
        began = time.perf_counter()
        body = head + b",".join([data] * count) + b"]}]}"
        assert target.server.client.post("/v2/models/m/infer", content=body).status_code == 400
        assert time.perf_counter() - began < 3
        assert process_memory.peak_bytes(target.server.process.pid) - before < 250 * MIB


class TestForms:
    @pytest.mark.parametrize("name", hostile.FILE_NAMES, ids=short_id)
    def test_hostile_file_names(self, target: Target, name: str) -> None:
        """File names appear only in the JSON body."""
        disposition = f'form-data; name="file"; filename="{name}"'.encode()
        raw = part(disposition, VALID_PNG)
        response = checked(send_form(target, raw))
        assert "x-injected" not in response.headers
        if response.status_code == 200:
            assert response.json()["results"][0]["status"] == "scored"

    @pytest.mark.parametrize(
        "headers",
        [
            b"", b"\r\n", b"Content-Disposition\r\n\r\n", b": x\r\n\r\n", b"Content-Disposition: \r\n\r\n",
            b"Content-Disposition: form-data\r\n\r\n", b"Content-Disposition: form-data; name=\r\n\r\n",
            b'Content-Disposition: form-data; name="file\r\n\r\n', b"X" * 100_000 + b": y\r\n\r\n",
            b'Content-Disposition: form-data; name="file"; filename*=utf-8\'\'%ff%00\r\n\r\n',
            b"Content-Disposition: form-data; name*=x''file\r\n\r\n", b"\xff\xfe: \xff\r\n\r\n",
            b'Content-Disposition: form-data; name="file"; filename="\xff\xfe\xed\xa0\x80"\r\n\r\n',
            b'Content-Disposition: form-data; name="file"\r\nContent-Transfer-Encoding: base64\r\n\r\n',
            b'Content-Disposition: form-data; name="file"\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n',
            b'Content-Disposition: form-data; name="_charset_"\r\n\r\nutf-7\r\n--xx\r\n',
        ],
        ids=short_id,
    )  # fmt: skip
    def test_hostile_part_headers(self, target: Target, headers: bytes) -> None:
        checked(send_form(target, b"--xx\r\n" + headers + VALID_PNG + b"\r\n--xx--\r\n"))

    @pytest.mark.parametrize(
        "content_type",
        [
            "multipart/form-data; boundary", "multipart/form-data; boundary=\"", "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=xx; boundary=yy", "multipart/form-data; charset=utf-7; boundary=xx",
            "multipart/form-data; boundary*=utf-8''xx", "multipart/mixed; boundary=xx", "multipart/", "/", ";",
            "image/",
            "multipart/form-data;" + "a=b;" * 5000, "image/png; " + "q" * 20_000, "image/png, multipart/form-data",
        ],
        ids=short_id,
    )  # fmt: skip
    def test_hostile_content_types(self, target: Target, content_type: str) -> None:
        body = part(b'form-data; name="file"; filename="a"', VALID_PNG)
        checked(target.server.client.post("/score", content=body, headers={"Content-Type": content_type}))

    def test_ten_thousand_tiny_parts(self, target: Target) -> None:
        tiny = b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n'
        assert checked(send_form(target, tiny * 10_000 + b"--xx--\r\n")).status_code == 413

    def test_ten_thousand_headers_in_a_part(self, target: Target) -> None:
        checked(send_form(target, b"--xx\r\n" + b"A: b\r\n" * 10_000 + b"\r\n" + VALID_PNG + b"\r\n--xx--\r\n"))

    def test_very_long_part_header(self, target: Target) -> None:
        began = time.perf_counter()
        checked(send_form(target, b"--xx\r\nA: " + b"b" * 3_000_000))
        assert time.perf_counter() - began < 3

    def test_content_of_partial_boundaries(self, target: Target) -> None:
        began = time.perf_counter()
        body = part(b'form-data; name="file"; filename="a"', b"\r\n--x" * 400_000)
        assert checked(send_form(target, body)).status_code == 422
        assert time.perf_counter() - began < 5

    @examples(150)
    @given(damage.damaged([b"--xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\n"
                            b"Content-Type: image/png\r\n\r\n" + VALID_PNG + b"\r\n--xx--\r\n"]))  # fmt: skip
    def test_damaged_forms(self, target: Target, body: bytes) -> None:
        checked(send_form(target, body))


def part(disposition: bytes, content: bytes) -> bytes:
    return b"--xx\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content + b"\r\n--xx--\r\n"


def send_form(target: Target, body: bytes) -> httpx.Response:
    headers = {"Content-Type": "multipart/form-data; boundary=xx"}
    return target.server.client.post("/score?include=", content=body, headers=headers)
