"""POST /score over the real service."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from app.api.schemas.scoring import ScoreAnswer
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec
from app.inference.images.rendering import error_map, to_image
from tests.support import Server, encode, gradient
from training.run import Published

Digits = dict[int, list[bytes]]


def post(server: Server, data: bytes, **query: Any) -> httpx.Response:
    return server.client.post("/score", content=data, headers={"Content-Type": "image/png"}, params=query)


def scored(server: Server, data: bytes, **query: Any) -> dict[str, Any]:
    response = post(server, data, **query)
    assert response.status_code == 200, response.text
    ScoreAnswer.model_validate_json(response.content)
    result: dict[str, Any] = response.json()["results"][0]
    return result


def image(data_uri: str) -> Image.Image:
    prefix, _, payload = data_uri.partition(",")
    assert prefix == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(payload)), formats=["PNG"])


def test_score_has_the_documented_fields(server: Server, trained: Published, digit_files: Digits) -> None:
    response = server.client.post("/score", files={"file": ("five.png", digit_files[5][0], "image/png")})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert set(answer) == {"model", "threshold", "false_alarm_rate", "results"}
    assert answer["model"] == {"name": "digits-5", "version": trained.manifest.version}
    assert answer["threshold"] == trained.manifest.threshold
    assert answer["false_alarm_rate"] == 0.05
    (result,) = answer["results"]
    assert list(result) == [
        "status", "filename", "mse", "score", "is_anomaly", "verdict", "out_of_scope", "p_value", "warnings",
        "regions", "reconstruction",
    ]  # fmt: skip
    assert result["status"] == "scored"
    assert result["filename"] == "five.png"
    assert all("calibration image" in warning for warning in result["warnings"])
    assert result["score"] == result["mse"]


def test_raw_and_multipart_scores_are_equal(server: Server, digit_files: Digits) -> None:
    data = digit_files[3][0]
    raw = scored(server, data)
    form = server.client.post("/score", files={"files": ("a.png", data)}).json()["results"][0]
    assert {**raw, "filename": "a.png"} == form
    assert raw["filename"] is None


def test_mse_is_the_mean_squared_difference_to_the_reconstruction(server: Server, digit_files: Digits) -> None:
    result = scored(server, digit_files[5][1])
    original = np.asarray(Image.open(io.BytesIO(digit_files[5][1])), dtype=np.float64) / 255
    rebuilt = image(result["reconstruction"])
    assert (rebuilt.mode, rebuilt.size) == ("L", (8, 8))
    mse = ((original - np.asarray(rebuilt, dtype=np.float64) / 255) ** 2).mean()
    assert result["mse"] == pytest.approx(mse, rel=0.02)  # the PNG is rounded to 8 bits


def test_verdict_threshold_and_p_value_are_consistent(server: Server, trained: Published, digit_files: Digits) -> None:
    scores = trained.manifest.calibration.scores
    anomalies = 0
    for digit in range(10):
        for data in digit_files[digit][:8]:
            result = scored(server, data, include="")
            assert "reconstruction" not in result
            assert result["is_anomaly"] is (result["score"] > trained.manifest.threshold)
            assert result["verdict"] == ("anomaly" if result["is_anomaly"] else "normal")
            expected = (1 + sum(score >= result["score"] for score in scores)) / (len(scores) + 1)
            assert result["p_value"] == pytest.approx(expected, abs=1e-12)
            anomalies += result["is_anomaly"]
    assert 30 <= anomalies <= 75  # fives are mostly normal; test_shipped_model.py measures the rates


def test_request_can_choose_the_false_alarm_rate(server: Server, trained: Published, digit_files: Digits) -> None:
    scores = trained.manifest.calibration.scores
    finest = 1 / (len(scores) + 1)
    for rate, threshold in ((finest, scores[-1]), (0.5, scores[len(scores) - (len(scores) + 1) // 2])):
        answer = post(server, digit_files[5][0], false_alarm_rate=repr(rate)).json()
        assert (answer["false_alarm_rate"], answer["threshold"]) == (rate, threshold)


@pytest.mark.parametrize("rate", ["0", "1", "-1", "2", "nan", "inf", "abc", ""])
def test_invalid_false_alarm_rate_is_422(server: Server, digit_files: Digits, rate: str) -> None:
    response = post(server, digit_files[5][0], false_alarm_rate=rate)
    assert response.status_code == 422
    assert "false_alarm_rate" in response.json()["detail"]


def test_unsupported_false_alarm_rate_is_422_with_the_required_size(server: Server, digit_files: Digits) -> None:
    response = post(server, digit_files[5][0], false_alarm_rate="0.0001")
    assert response.status_code == 422
    assert "needs at least 9999 calibration images" in response.json()["detail"]


def test_request_can_choose_the_threshold(server: Server, trained: Published, digit_files: Digits) -> None:
    score = scored(server, digit_files[3][0])["score"]
    for threshold, verdict in ((score, "normal"), (0, "anomaly"), (score * (1 - 1e-6), "anomaly"), (1e9, "normal")):
        answer = post(server, digit_files[3][0], threshold=repr(threshold)).json()
        assert (answer["threshold"], answer["false_alarm_rate"]) == (threshold, None)
        assert (answer["results"][0]["verdict"], answer["results"][0]["score"]) == (verdict, score)
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    strip = server.client.post("/score?threshold=0.25", content=digit_files[3][0], headers=headers)
    assert strip.headers["X-Anomaly-Threshold"] == "0.25"


@pytest.mark.parametrize("threshold", ["-1", "nan", "inf", "abc", ""])
def test_invalid_threshold_is_422(server: Server, digit_files: Digits, threshold: str) -> None:
    response = post(server, digit_files[5][0], threshold=threshold)
    assert response.status_code == 422
    assert response.json()["detail"].startswith("threshold: ")


def test_threshold_excludes_a_false_alarm_rate(server: Server, digit_files: Digits) -> None:
    response = post(server, digit_files[5][0], threshold="0.5", false_alarm_rate="0.1")
    assert response.status_code == 422
    assert "false_alarm_rate and threshold exclude each other" in response.json()["detail"]


def test_include_selects_the_images(server: Server, digit_files: Digits) -> None:
    data = digit_files[4][0]
    assert {"reconstruction", "error_map"} <= set(scored(server, data, include="reconstruction, error_map"))
    only = scored(server, data, include="error_map")
    assert "reconstruction" not in only
    assert image(only["error_map"]).mode == "RGB"
    repeated = server.client.post(
        "/score?include=error_map&include=reconstruction", content=data, headers={"Content-Type": "image/png"}
    )
    assert {"reconstruction", "error_map"} <= set(repeated.json()["results"][0])
    response = post(server, data, include="heatmap")
    assert response.status_code == 422
    assert "'heatmap' is not one of input, reconstruction, error_map, mask" in response.json()["detail"]


def test_error_map_has_a_fixed_colour_scale() -> None:
    original = torch.zeros(1, 2, 2)
    rebuilt = torch.tensor([[[0.0, 0.5], [1.0, 0.0]]])
    pixels = np.asarray(error_map(original, rebuilt))
    assert pixels[0, 0].tolist() == [0, 0, 4]
    assert pixels[0, 1].tolist() == pytest.approx([188, 55, 84], abs=2)
    assert pixels[1, 0].tolist() == [252, 255, 164]


def test_strip_has_input_reconstruction_and_error_map(server: Server, digit_files: Digits) -> None:
    data = digit_files[7][0]
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    response = server.client.post("/score?view=strip", content=data, headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    result = scored(server, data)
    assert float(response.headers["X-Anomaly-MSE"]) == pytest.approx(result["mse"])
    assert float(response.headers["X-Anomaly-Threshold"]) > 0
    assert response.headers["X-Anomaly-Verdict"] == result["verdict"]
    sheet = np.asarray(Image.open(io.BytesIO(response.content)))
    assert sheet.shape == (8, 24, 3)
    original = np.asarray(Image.open(io.BytesIO(data)))
    rebuilt = np.asarray(image(result["reconstruction"]))
    for channel in range(3):
        assert (sheet[:, :8, channel] == original).all()
        assert (sheet[:, 8:16, channel] == rebuilt).all()


def test_results_are_in_upload_order_with_rejected_files(server: Server, digit_files: Digits) -> None:
    names = ["a.png", "notes.txt", "b.png", "empty.png", "bomb.png"]
    bodies = [digit_files[1][0], b"not an image", digit_files[5][0], b"", encode(Image.new("1", (2000, 2000)))]
    files = [
        ("files" if i % 2 else "file", (name, body)) for i, (name, body) in enumerate(zip(names, bodies, strict=True))
    ]
    response = server.client.post("/score", files=files)
    assert response.status_code == 200
    ScoreAnswer.model_validate_json(response.content)
    results = response.json()["results"]
    assert [result["filename"] for result in results] == names
    assert [result["status"] for result in results] == ["scored", "rejected", "scored", "rejected", "rejected"]
    assert [results[i]["error"]["status"] for i in (1, 3, 4)] == [422, 422, 413]
    assert set(results[1]["error"]) == {"type", "title", "status", "detail"}
    assert results[0]["mse"] == pytest.approx(scored(server, bodies[0])["mse"], rel=1e-5)


def test_status_is_that_of_the_first_rejection_if_all_are_rejected(server: Server) -> None:
    bomb = encode(Image.new("1", (2000, 2000)))
    response = server.client.post("/score", files=[("file", ("bomb.png", bomb)), ("file", ("b.txt", b"text"))])
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert [(each["filename"], each["status"]) for each in body["errors"]] == [("bomb.png", 413), ("b.txt", 422)]
    assert body["status"] == 413


def test_warnings_describe_conversions(server: Server) -> None:
    image = Image.new("RGBA", (30, 20), (200, 10, 10, 128))
    assert scored(server, encode(image))["warnings"][:3] == [
        "transparency was flattened onto black",
        "resized from 30×20 to 8×8, which changed its proportions",
        "colour was converted to grey",
    ]


def test_other_model_is_loaded_on_first_use(server: Server) -> None:
    answer = post(server, encode(gradient().convert("RGB")), model="colour").json()
    assert answer["model"]["name"] == "colour"
    assert image(answer["results"][0]["reconstruction"]).mode == "RGB"


def test_batching_does_not_change_scores(server: Server, digit_files: Digits) -> None:
    files = [digit_files[digit][k] for k in range(16) for digit in range(10)]
    alone = [scored(server, data, include="")["score"] for data in files]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda data: scored(server, data, include="")["score"], files))
    assert together == pytest.approx(alone, rel=1e-5)


def test_large_images_have_the_same_score_as_small_ones(server: Server) -> None:
    """Images above 256 × 256 are decoded in threads, which must not change the scores."""
    large = gradient(960, 940)
    spec = InputSpec(mode="L", height=8, width=8, reduction="area")
    small = to_image(open_image(encode(large), max_pixels=10**6).decode(spec).tensor)
    assert scored(server, encode(large))["score"] == scored(server, encode(small))["score"]


def test_documented_examples_of_score_are_valid(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    answers = document["paths"]["/score"]["post"]["responses"]
    ScoreAnswer.model_validate(answers["200"]["content"]["application/json"]["example"])
    assert {"200", "400", "401", "404", "406", "413", "415", "422", "429", "503", "504"} <= set(answers)
    for status, answer in answers.items():
        for example in answer["content"].get("application/problem+json", {}).get("examples", {}).values():
            assert example["value"]["status"] == int(status)
    assert json.dumps(document)


def test_fdr_decides_the_images_of_a_request_together(server: Server, trained: Published, digit_files: Digits) -> None:
    def ask(files: list[bytes], **query: Any) -> dict[str, Any]:
        parts = [("file", (f"{number}.png", data)) for number, data in enumerate(files)]
        answer = server.client.post("/score", params={"include": "", **query}, files=parts)
        assert answer.status_code == 200, answer.text
        ScoreAnswer.model_validate_json(answer.content)
        body: dict[str, Any] = answer.json()
        return body

    files = [digit_files[digit][0] for digit in (5, 0, 1, 2, 3, 4, 6)]
    calibration = trained.manifest.calibration.scores
    rate = 2 / (len(calibration) + 1)  # a third of the images at least must have the smallest p-value to be flagged
    together = ask([*files, b"no image"], fdr=rate)
    results = together["results"][:-1]
    assert (together["fdr"], together["false_alarm_rate"]) == (rate, None)
    assert [each["is_anomaly"] for each in results] == [each["score"] > together["threshold"] for each in results]
    p_values = sorted(each["p_value"] for each in results)
    flagged = max((k for k, p in enumerate(p_values, 1) if p <= rate * k / len(p_values) * (1 + 1e-9)), default=0)
    assert sum(each["is_anomaly"] for each in results) == flagged >= 4
    # The same anomaly among normal images only is too little evidence at this rate.
    alone = ask([files[1], *[digit_files[5][0]] * 7], fdr=rate)
    assert [each["verdict"] for each in alone["results"]] == ["normal"] * 8
    assert alone["threshold"] >= max(each["score"] for each in alone["results"])
    assert "fdr" not in ask(files[:1])


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"fdr": "1"}, "fdr: "),
        ({"fdr": "nan"}, "fdr: "),
        ({"fdr": "0.1", "threshold": "1"}, "fdr excludes false_alarm_rate and threshold"),
        ({"fdr": "0.1", "false_alarm_rate": "0.1"}, "fdr excludes false_alarm_rate and threshold"),
        ({"fdr": "0.0001"}, "with fdr 0.0001 no image can be flagged: the smallest p-value of "),
    ],
)
def test_unusable_fdr_is_422(server: Server, digit_files: Digits, query: dict[str, str], detail: str) -> None:
    response = post(server, digit_files[5][0], **query)
    assert response.status_code == 422
    assert detail in response.json()["detail"]
