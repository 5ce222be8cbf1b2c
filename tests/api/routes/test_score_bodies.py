"""The kinds of bodies of POST /score other than forms and image/*: JSON with base64, and application/octet-stream."""

import base64
from typing import Any

import httpx
import pytest

from app.api.http.body.json_images import EncodedImages
from app.api.schemas.scoring import ScoreAnswer
from tests.support import Server, encode, gradient

Digits = dict[int, list[bytes]]

PNG = encode(gradient())


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def post(server: Server, *images: dict[str, Any]) -> httpx.Response:
    return server.client.post("/score?include=", json={"images": images})


def test_octet_stream_is_an_image_by_content(server: Server, digit_files: Digits) -> None:
    def score(media_type: str, data: bytes) -> httpx.Response:
        return server.client.post("/score?include=", content=data, headers={"Content-Type": media_type})

    data = digit_files[3][0]
    assert score("application/octet-stream", data).json() == score("image/png", data).json()
    part = server.client.post("/score?include=", files={"file": ("a", data, "application/octet-stream")})
    assert part.json()["results"][0]["status"] == "scored"
    refused = score("application/octet-stream", b"no image")
    assert refused.status_code == 422
    assert refused.json()["title"] == "Not a readable image"


def test_json_images_score_as_a_form_does(server: Server, digit_files: Digits) -> None:
    files = [("file", (f"{digit}.png", digit_files[digit][0])) for digit in (5, 3)]
    form = server.client.post("/score?include=", files=files).json()
    plain, uri = (b64(data) for _, (_, data) in files)
    response = post(
        server, {"data": plain, "filename": "5.png"}, {"data": f"data:image/png;base64,{uri}", "filename": "3.png"}
    )
    assert response.status_code == 200
    ScoreAnswer.model_validate_json(response.content)
    for mine, theirs in zip(response.json()["results"], form["results"], strict=True):
        for number in ("mse", "score", "p_value"):  # batches round differently
            assert mine.pop(number) == pytest.approx(theirs.pop(number), rel=1e-5)
        assert mine == theirs


def test_json_image_without_filename_and_with_broken_lines(server: Server) -> None:
    lines = base64.encodebytes(PNG * 2).decode()  # bytes after an image are ignored
    assert "\n" in lines.strip()
    (result,) = post(server, {"data": lines}).json()["results"]
    assert (result["status"], result["filename"]) == ("scored", None)


@pytest.mark.parametrize(
    "data",
    ["@@@@", "a", "iVBORw0KGgo", "é", "data:image/png,%89PNG", "data:image/png;base64", b64(PNG)[:-2] + "=", "=" * 8],
)
def test_invalid_base64_rejects_its_image_only(server: Server, data: str) -> None:
    response = post(server, {"data": b64(PNG), "filename": "a"}, {"data": data, "filename": "b"}, {"data": b64(PNG)})
    assert response.status_code == 200
    first, second, third = response.json()["results"]
    assert [each["status"] for each in (first, second, third)] == ["scored", "rejected", "scored"]
    assert second["filename"] == "b"
    assert second["error"]["status"] == 422
    assert "base64" in second["error"]["detail"]
    alone = post(server, {"data": data, "filename": "b"})
    assert alone.status_code == 422
    assert alone.json()["errors"][0]["filename"] == "b"


def test_empty_and_unreadable_data_are_rejected(server: Server) -> None:
    response = post(server, {"data": ""}, {"data": b64(b"no image")})
    assert response.status_code == 422
    assert [each["status"] for each in response.json()["errors"]] == [422, 422]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("{", "Invalid JSON"),
        ("[]", "should be an object"),
        ("{}", "images: Field required"),
        ('{"images": [{"file": ""}]}', "images.0.data: Field required"),
        ('{"images": [{"data": 1}]}', "images.0.data: Input should be a valid string"),
        ('{"images": [{"data": "", "file_name": "a"}]}', "images.0.file_name: Extra inputs"),
        ('{"images": [], "model": "m"}', "model: Extra inputs"),
        ('{"images": [{"data": "", "filename": "\\ud800"}]}', "Invalid JSON"),
        ('{"images": [' + "{}," * 20_000 + "{}]}", "more than 10000 objects"),
        ('{"images": ' + "[" * 100_000, "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        ('{"images": []}', "the list of images is empty"),
        ("", "no body"),
    ],
    ids=range(13),
)
def test_malformed_json_is_400(server: Server, body: str | bytes, detail: str) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    response = server.client.post("/score", content=body, headers=headers)
    assert response.status_code == 400, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert detail in response.json()["detail"]


def test_json_has_the_limits_of_forms(server: Server) -> None:
    many = post(server, *[{"data": b64(PNG)}] * 9)
    assert many.status_code == 413
    assert many.json()["detail"] == "one request may carry 8 files, this one has 9; ANOMALY_MAX_FILES sets this limit"
    large = post(server, {"data": "A" * 2**20})
    assert large.status_code == 413
    assert "ANOMALY_MAX_BODY_BYTES sets this limit" in large.json()["detail"]


def test_413_of_pixels_names_its_setting(server: Server) -> None:
    response = post(server, {"data": b64(encode(gradient(2000, 2000)))})
    assert response.status_code == 413
    assert response.json()["detail"].endswith("; ANOMALY_MAX_PIXELS sets this limit")
    assert response.json()["errors"][0]["detail"] == response.json()["detail"]


def test_rejected_base64_is_counted(server: Server) -> None:
    def count() -> float:
        name = 'anomaly_rejected_total{reason="unreadable-image"} '
        lines = server.client.get("/metrics").text.splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = count()
    assert post(server, {"data": "@"}, {"data": b64(PNG)}).status_code == 200
    assert count() == before + 1


def test_documented_json_request_is_valid(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    content = document["paths"]["/score"]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "application/json", "application/octet-stream", "image/png"} <= set(content)
    EncodedImages.model_validate(content["application/json"]["example"])
