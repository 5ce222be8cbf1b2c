"""Every error is a problem document with the documented status."""

import socket
import uuid
from collections.abc import Iterator

import httpx
import pytest

from app.api.schemas.scoring import Problem
from tests.support import Server, encode, gradient

PNG = encode(gradient())


def check(response: httpx.Response, status: int) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(response.content)
    assert problem.status == status
    assert problem.instance == response.headers["X-Request-ID"]
    return problem


def form(*parts: tuple[str, bytes], boundary: str = "xx", close: bool = True) -> dict[str, object]:
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content + b"\r\n"
        for disposition, content in parts
    )
    body += f"--{boundary}--\r\n".encode() if close else b""
    return {"content": body, "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"}}


class TestBadRequests:
    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("multipart/form-data", b"--x\r\n"),
            ("multipart/form-data; boundary=", b"--x\r\n"),
            ("multipart/form-data; boundary=x", b"no boundary"),
            ("multipart/form-data; boundary=x", b"--x\r\nbroken header\r\n\r\n\r\n--x--\r\n"),
            ("multipart/form-data; boundary=x", b""),
            ("multipart/form-data; boundary=" + "x" * 5000, b"--"),
        ],
    )
    def test_malformed_multipart_is_400(self, server: Server, content_type: str, body: bytes) -> None:
        check(server.client.post("/score", content=body, headers={"Content-Type": content_type}), 400)

    def test_truncated_multipart_is_400(self, server: Server) -> None:
        request = form(('name="file"; filename="a.png"', PNG), close=False)
        assert "closing boundary" in check(server.client.post("/score", **request), 400).detail  # type: ignore[arg-type]

    def test_form_without_image_is_400(self, server: Server) -> None:
        detail = check(server.client.post("/score", files={"image": ("a.png", PNG)}), 400).detail
        assert "file or files" in detail
        assert "'image'" in detail

    def test_empty_file_input_is_400(self, server: Server) -> None:
        check(server.client.post("/score", **form(('name="file"; filename=""', b""))), 400)  # type: ignore[arg-type]

    def test_empty_raw_body_is_400(self, server: Server) -> None:
        check(server.client.post("/score", headers={"Content-Type": "image/png"}), 400)

    def test_missing_body_is_400(self, server: Server) -> None:
        check(server.client.post("/score"), 400)


class TestNotFound:
    def test_unknown_model_is_404(self, server: Server) -> None:
        for name in ("nothing", "..%2f..%2fetc", "CURRENT"):
            check(server.client.post(f"/score?model={name}", files={"file": PNG}), 404)
        assert "'nothing'" in check(server.client.get("/models/nothing"), 404).detail

    def test_unknown_route_is_404(self, server: Server) -> None:
        assert "/nothing/here" in check(server.client.get("/nothing/here"), 404).detail

    def test_wrong_method_is_405(self, server: Server) -> None:
        response = server.client.get("/score")
        check(response, 405)
        assert response.headers["allow"] == "POST"


def test_unacceptable_accept_is_406(server: Server) -> None:
    response = server.client.post("/score", files={"file": PNG}, headers={"Accept": "text/html"})
    assert "application/json or image/png" in check(response, 406).detail


def test_several_accept_headers_are_combined(server: Server) -> None:
    headers = [("Accept", "text/html"), ("Accept", "image/png"), ("Content-Type", "image/png")]
    request = httpx.Request("POST", f"http://127.0.0.1:{server.port}/score", content=PNG, headers=headers)
    assert server.client.send(request).headers["content-type"] == "image/png"


def test_paths_are_exact_and_logged_without_control_characters(server: Server) -> None:
    for path in ("/health/", "/score/", "/models/%00%0a"):
        check(server.client.get(path), 404)
    assert "\0" not in server.log.read_text()


def test_two_images_with_accept_png_is_406(server: Server) -> None:
    response = server.client.post("/score", files=[("file", PNG), ("file", PNG)], headers={"Accept": "image/png"})
    check(response, 406)


class TestTooLarge:
    LIMIT = 2**20  # max_body_bytes of the server fixture

    def test_content_length_above_the_limit_is_413(self, server: Server) -> None:
        response = server.client.post("/score", content=b"x" * (self.LIMIT + 1), headers={"Content-Type": "image/png"})
        check(response, 413)

    def test_chunked_body_above_the_limit_is_413(self, server: Server) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(self.LIMIT // 2**16 + 1):
                yield b"x" * 2**16

        check(server.client.post("/score", content=chunks(), headers={"Content-Type": "image/png"}), 413)

    def test_body_limit_is_exact(self, server: Server) -> None:
        padded = PNG + b"\0" * (self.LIMIT - len(PNG))  # decoders stop at the end of the PNG
        response = server.client.post("/score", content=padded, headers={"Content-Type": "image/png"})
        assert response.status_code == 200
        check(server.client.post("/score", content=padded + b"\0", headers={"Content-Type": "image/png"}), 413)

    def test_too_many_files_is_413(self, server: Server) -> None:
        assert server.client.post("/score", files=[("file", PNG)] * 8).status_code == 200
        assert "8 files" in check(server.client.post("/score", files=[("file", PNG)] * 9), 413).detail

    def test_too_many_form_parts_is_413(self, server: Server) -> None:
        parts = [('name="comment"', b"x")] * 500
        check(server.client.post("/score", **form(*parts)), 413)  # type: ignore[arg-type]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "video/mp4"])
def test_unsupported_media_type_is_415(server: Server, media_type: str) -> None:
    response = server.client.post("/score", content=PNG, headers={"Content-Type": media_type})
    assert media_type in check(response, 415).detail


def test_missing_content_type_is_415(server: Server) -> None:
    request = server.client.build_request("POST", "/score", content=PNG)
    assert "content-type" not in request.headers
    check(server.client.send(request), 415)


class TestRequestId:
    def test_valid_request_id_is_kept(self, server: Server) -> None:
        response = server.client.get("/nothing", headers={"X-Request-ID": "job-7:a"})
        assert check(response, 404).instance == "job-7:a"

    @pytest.mark.parametrize("sent", ["", "a b", "x" * 129, '"quoted"', "<script>"])
    def test_invalid_request_id_is_replaced(self, server: Server, sent: str) -> None:
        returned = server.client.get("/health", headers={"X-Request-ID": sent}).headers["X-Request-ID"]
        assert uuid.UUID(hex=returned)


def test_garbage_on_the_connection_does_not_stop_the_service(server: Server) -> None:
    for garbage in (
        b"\0\1\2\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /score HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"\x16\x03\x01",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert server.client.get("/health").status_code == 200


def test_filenames_are_returned_unchanged(server: Server) -> None:
    for name in ("größe 5.png", "../../etc/passwd", 'a"b.png', "x" * 300):
        response = server.client.post("/score", files={"file": (name, PNG)})
        assert response.status_code == 200
        assert response.json()["results"][0]["filename"].replace("%22", '"') == name
