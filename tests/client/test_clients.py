"""Both clients against the real service: all forms of images, typed responses, every error."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.client import (
    AllRejected,
    AnomalyClient,
    ClientError,
    ImageInput,
    ModelCard,
    ModelVersion,
    Overloaded,
    Picture,
    Problem,
    RejectedImage,
    Retry,
    ScoreAnswer,
    ScoredImage,
    ServiceUnreachable,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    UnknownModel,
    api_requests,
)
from tests.client.conftest import Connect
from tests.support import ROOT, Server, encode, free_port, gradient
from training.run import Published

Digits = dict[int, list[bytes]]


class TestImages:
    def test_every_form_of_image_gets_the_same_score(
        self, service: AnomalyClient, server: Server, digit_files: Digits, tmp_path: Path
    ) -> None:
        data = digit_files[7][0]
        path = tmp_path / "größe 7.png"
        path.write_bytes(data)
        expected = server.client.post("/score", content=data, headers={"Content-Type": "image/png"}).json()
        with path.open("rb") as file:
            answer = service.score(
                [data, bytearray(data), memoryview(data), path, str(path), file, io.BytesIO(data), _opened(data)]
            )
        one = pytest.approx(expected["results"][0]["mse"], rel=1e-5)  # a batch rounds differently from one alone
        assert [result.mse for result in answer.scored] == [one] * 8
        assert [result.filename for result in answer.results] == [None] * 3 + [path.name] * 3 + [None] * 2

    @pytest.mark.parametrize(
        "image",
        [lambda data, _: data, lambda _, path: path, lambda _, path: str(path), lambda data, _: _opened(data)],
    )
    def test_single_image_without_a_list(
        self, service: AnomalyClient, digit_files: Digits, tmp_path: Path, image: Callable[[bytes, Path], Any]
    ) -> None:
        (tmp_path / "a.png").write_bytes(digit_files[7][0])
        answer = service.score(image(digit_files[7][0], tmp_path / "a.png"))
        assert len(answer.results) == len(answer.scored) == 1

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr", "F"])
    def test_pillow_images_of_any_mode(self, service: AnomalyClient, mode: str) -> None:
        if mode == "F":
            image = Image.fromarray(np.asarray(gradient(), dtype=np.float32) / 255)
        elif mode == "I;16":
            image = Image.fromarray(np.asarray(gradient(), dtype=np.uint16) * 257)
        else:
            image = gradient().convert(mode)
        expected = service.score(gradient().convert("1") if mode == "1" else gradient()).scored[0].mse
        assert service.score(image).scored[0].mse == pytest.approx(expected, rel=0.02)

    def test_generator_of_images(self, service: AnomalyClient, digit_files: Digits) -> None:
        assert len(service.score(data for data in digit_files[1][:3]).results) == 3

    def test_invalid_images_are_local_errors(self, service: AnomalyClient) -> None:
        with pytest.raises(ValueError, match="no image"):
            service.score([])
        with pytest.raises(TypeError, match="int is not an image"):
            service.score([b"x", 5])  # type: ignore[list-item]
        with pytest.raises(FileNotFoundError):
            service.score("nowhere.png")


class TestResponses:
    def test_scored_images(self, service: AnomalyClient, trained: Published, digit_files: Digits) -> None:
        answer = service.score([digit_files[5][0], digit_files[0][0]])
        assert isinstance(answer, ScoreAnswer)
        assert answer.model == ModelVersion("digits-5", trained.manifest.version)
        assert (answer.threshold, answer.false_alarm_rate) == (trained.manifest.threshold, 0.05)
        for result in answer.results:
            assert isinstance(result, ScoredImage)
            assert result.status == "scored"
            assert result.is_anomaly is (result.score > answer.threshold)
            assert result.verdict == ("anomaly" if result.is_anomaly else "normal")
            assert 0 < result.p_value <= 1
            assert (result.input, result.reconstruction, result.error_map) == (None, None, None)

    def test_included_images_are_png_files(self, service: AnomalyClient, digit_files: Digits) -> None:
        (result,) = service.score(digit_files[5][0], include=["reconstruction", "error_map"]).scored
        assert result.reconstruction is not None
        assert result.error_map is not None
        assert Image.open(io.BytesIO(result.reconstruction)).size == (8, 8)
        assert Image.open(io.BytesIO(result.error_map)).mode == "RGB"
        assert "reconstruction" not in repr(result)

    def test_model_and_false_alarm_rate(self, service: AnomalyClient, digit_files: Digits) -> None:
        answer = service.score(digit_files[5][0], model="colour", false_alarm_rate=0.25)
        assert (answer.model.name, answer.false_alarm_rate) == ("colour", 0.25)

    def test_threshold_decides_instead_of_a_rate(self, service: AnomalyClient, digit_files: Digits) -> None:
        answer = service.score(digit_files[5][0], threshold=0.0)
        assert (answer.threshold, answer.false_alarm_rate) == (0, None)
        assert answer.scored[0].verdict == "anomaly"
        assert service.side_by_side(digit_files[0][0], threshold=1e6).verdict == "normal"
        for call in (service.score, service.side_by_side):
            with pytest.raises(ValueError, match="exclude each other"):
                call(digit_files[5][0], threshold=0.5, false_alarm_rate=0.1)

    def test_rejected_files_keep_the_order(self, service: AnomalyClient, digit_files: Digits) -> None:
        answer = service.score([b"not an image", digit_files[5][0], b""])
        assert [result.status for result in answer.results] == ["rejected", "scored", "rejected"]
        assert [each.error.status for each in answer.rejected] == [422, 422]
        assert answer.rejected[1].error.detail == "the file is empty"
        assert answer.rejected[1].error.type == "urn:problem-type:unreadable-image"

    def test_side_by_side(self, service: AnomalyClient, digit_files: Digits) -> None:
        strip = service.side_by_side(digit_files[0][0], false_alarm_rate=0.1)
        answer = service.score(digit_files[0][0], false_alarm_rate=0.1)
        (result,) = answer.scored
        assert Image.open(io.BytesIO(strip.png)).size == (24, 8)
        assert (strip.mse, strip.score, strip.p_value) == pytest.approx((result.mse, result.score, result.p_value))
        assert (strip.model, strip.threshold, strip.is_anomaly, strip.verdict) == (
            answer.model, answer.threshold, result.is_anomaly, result.verdict,
        )  # fmt: skip

    def test_regions_and_overlay(self, service: AnomalyClient, digit_files: Digits) -> None:
        (result,) = service.score(digit_files[0][0], threshold=1e-6, include=["mask"]).scored
        assert result.regions
        assert result.regions[0].peak == result.score
        left, top, width, height = result.regions[0].box
        assert (left + width <= 8, top + height <= 8) == (True, True)
        assert result.mask is not None
        mask = Image.open(io.BytesIO(result.mask))
        assert (mask.mode, mask.size, mask.getpixel((left, top))) in {("L", (8, 8), 0), ("L", (8, 8), 255)}
        assert service.score(digit_files[0][0], threshold=1e6).scored[0].regions == ()
        overlay = service.overlay(digit_files[0][0], threshold=1e-6)
        assert Image.open(io.BytesIO(overlay.png)).size == (8, 8)
        assert overlay.verdict == "anomaly"
        assert overlay.score == pytest.approx(result.score)

    def test_health_and_models(self, service: AnomalyClient, trained: Published) -> None:
        health = service.health()
        assert health.ok
        assert health.model == ModelVersion("digits-5", trained.manifest.version)
        assert health.model in health.models
        models = service.models()
        assert (models.default, [card.name for card in models.models]) == ("digits-5", ["colour", "digits-5"])
        card = service.model("digits-5")
        assert isinstance(card, ModelCard)
        assert card == models.models[1]
        assert (card.mode, card.height, card.width, card.guarantee) == ("L", 8, 8, "marginal")
        assert card.calibration_size == trained.manifest.calibration.size
        assert card.threshold == trained.manifest.threshold
        assert card.document["training"]["seed"] == 1337


def test_models_of_all_pages(connect: Connect, closed_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_requests, "_PAGE_SIZE", 1)
    with connect(closed_url, api_key="schlüssel") as service:
        models = service.models()
        assert [card.name for card in models.models] == ["colour", "digits-5"]
        assert [refused.name for refused in models.refused] == ["broken"]  # on a page of its own
        assert models.next is None


class TestErrors:
    def test_all_rejected(self, service: AnomalyClient, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"text")
        bomb = encode(Image.new("1", (2000, 2000)))
        with pytest.raises(AllRejected) as caught:
            service.score([bomb, tmp_path / "a.png"])
        assert caught.value.status == 413
        assert [type(each) for each in caught.value.rejected] == [RejectedImage, RejectedImage]
        assert [(each.filename, each.error.status) for each in caught.value.rejected] == [(None, 413), ("a.png", 422)]

    def test_problem_has_the_fields_of_its_document(self, service: AnomalyClient, digit_files: Digits) -> None:
        with pytest.raises(Problem) as caught:
            service.score(digit_files[5][0], false_alarm_rate=1e-6)
        problem = caught.value
        assert (problem.type, problem.status) == ("urn:problem-type:unsupported-false-alarm-rate", 422)
        assert problem.title == "False-alarm rate not supported"
        assert "calibration images" in problem.detail
        assert len(problem.instance) == 32
        assert str(problem) == f"{problem.title}: {problem.detail}"

    def test_unknown_model(self, service: AnomalyClient, digit_files: Digits) -> None:
        for request in (lambda: service.score(digit_files[5][0], model="no"), lambda: service.model("no such?")):
            with pytest.raises(UnknownModel):
                request()

    def test_too_large_by_files_and_by_bytes(self, service: AnomalyClient, digit_files: Digits) -> None:
        with pytest.raises(TooLarge, match="8 files"):
            service.score([digit_files[5][0]] * 9)
        with pytest.raises(TooLarge, match="1048576 is the limit"):
            service.score(b"x" * 2**20)

    def test_unknown_include(self, service: AnomalyClient, digit_files: Digits) -> None:
        with pytest.raises(Problem, match="heatmap"):
            service.score(digit_files[5][0], include=["heatmap"])

    def test_connection_refused(self, connect: Connect) -> None:
        address = f"http://127.0.0.1:{free_port()}"
        with connect(address, retry=Retry(retries=1, first_s=0.01)) as client:
            for request in (client.health, client.models, lambda: client.score(b"x")):
                with pytest.raises(ServiceUnreachable, match=f"{address}.*: Connection refused"):
                    request()

    @pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "http://host:port", "nothing"])
    def test_invalid_url(self, connect: Connect, url: str) -> None:
        with pytest.raises(ValueError, match="is not a"):
            connect(url)


class TestUnexpectedResponses:
    """Responses of proxies and of other programs."""

    @pytest.mark.parametrize(
        ("response", "expected", "message"),
        [
            (httpx.Response(200, html="<h1>Welcome</h1>"), UnexpectedAnswer, "status 200, text/html"),
            (httpx.Response(200, json={"results": []}), UnexpectedAnswer, "application/json"),
            (httpx.Response(200, json=[]), UnexpectedAnswer, "application/json"),
            (httpx.Response(301, headers={"Location": "https://x/"}), UnexpectedAnswer, "to https://x/"),
            (httpx.Response(413, html="<h1>Too   large</h1>"), TooLarge, "Too large"),
            (httpx.Response(429, text=""), Overloaded, "Too Many Requests"),
            (httpx.Response(503, text="upstream"), Unavailable, "upstream"),
            (httpx.Response(502, text="x" * 9999), Problem, "Bad Gateway"),
            (httpx.Response(599, text=""), Problem, "599"),
            (
                httpx.Response(400, text="{}", headers={"Content-Type": "application/problem+json"}),
                UnexpectedAnswer,
                "status 400",
            ),
            (
                httpx.Response(200, stream=httpx.ByteStream(b"xx"), headers={"Content-Encoding": "gzip"}),
                UnexpectedAnswer,
                "cannot decode",
            ),
        ],
    )
    def test_error_message_is_one_line(
        self, response: httpx.Response, expected: type[ClientError], message: str
    ) -> None:
        transport = httpx.MockTransport(lambda _: response)
        with AnomalyClient(retry=Retry(retries=0), transport=transport) as client:
            with pytest.raises(expected, match=message) as caught:
                client.score(b"x")
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 400

    def test_side_by_side_response_that_is_not_an_image(self) -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, json={}))
        with AnomalyClient(transport=transport) as client, pytest.raises(UnexpectedAnswer):
            client.side_by_side(b"x")

    def test_health_of_a_service_that_is_not_ready(self) -> None:
        body: dict[str, object] = {
            "status": "starting",
            "reason": "loading",
            "model": None,
            "models": [],
            "refused": [],
            "uptime_s": 1,
        }
        requests: list[httpx.Request] = []

        def respond(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            return httpx.Response(503, json=body, headers={"Retry-After": "9"})

        with AnomalyClient("http://host/prefix/", transport=httpx.MockTransport(respond)) as client:
            health = client.health()
        assert (health.ok, health.status, health.reason, health.model) == (False, "starting", "loading", None)
        assert [str(request.url) for request in requests] == ["http://host/prefix/health"]

    def test_unknown_fields_are_ignored(self) -> None:
        (result,) = ScoreAnswer.parse(
            ("a.png",),
            {
                "model": {"name": "m", "version": "1", "new": 1}, "threshold": 1, "false_alarm_rate": 0.1, "new": {},
                "results": [
                    {"status": "scored", "mse": 0, "score": 0, "is_anomaly": False, "verdict": "normal", "p_value": 1,
                     "warnings": [], "new": [], "input": "data:image/png;base64,aGk="},
                ],
            },
        ).scored  # fmt: skip
        assert (result.filename, result.input, result.regions) == ("a.png", b"hi", None)


def test_api_keys(connect: Connect, closed_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(closed_url, api_key="schlüssel\n") as given:
        assert given.models().default == "digits-5"
    for key in (None, "wrong"):
        with connect(closed_url, api_key=key) as unauthorized, pytest.raises(Unauthorized) as caught:
            unauthorized.models()
        assert caught.value.status == 401
    monkeypatch.setenv("ANOMALY_API_KEY", "schlüssel")
    with connect(closed_url) as from_environment:
        assert from_environment.models().default == "digits-5"


def test_connections_are_reused(service: AnomalyClient, digit_files: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def trace(event: str, _: object) -> None:
        if event == "connection.connect_tcp.started":
            opened.append(event)

    async def trace_async(event: str, info: object) -> None:
        trace(event, info)

    http = getattr(service, "_client", service)._http
    asynchronous = isinstance(http, httpx.AsyncClient)
    build = http.build_request

    def build_traced(*args: Any, **options: Any) -> httpx.Request:
        return build(*args, **options, extensions={"trace": trace_async if asynchronous else trace})

    monkeypatch.setattr(http, "build_request", build_traced)
    for _ in range(5):
        service.score(digit_files[5][0])
    assert len(opened) == 1


def test_client_imports_no_server_code() -> None:
    code = "import app.client, sys; app.client.AnomalyClient; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"torch", "fastapi", "numpy", "PIL", "pydantic", "app.inference", "app.api"}
    assert heavy.isdisjoint(loaded.stdout.split())
    assert "httpx" in loaded.stdout.split()


def test_exported_names() -> None:
    import app.client

    assert all(hasattr(app.client, name) for name in app.client.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = app.client.Nothing


def test_picture_is_the_former_name_of_image_input() -> None:
    assert Picture is ImageInput


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))
