"""Regions of anomalies over HTTP, in pixels of the uploaded image."""

import base64
import io
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.api.schemas.scoring import ScoreAnswer
from app.inference.bundles.store import ModelStore
from app.inference.images.model_input import Fit, InputSpec
from tests.support import ROOT, Server, encode, make_bundle, running_server

FITS: list[Fit] = ["stretch", "pad", "crop"]
SIDE, CELLS = 64, 16
BOX = (300, 200, 90, 60)  # near the centre: a crop shows it
OLD = "mnist-5"  # published before maps were part of a model


@pytest.fixture(scope="module")
def located(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with models whose score is the brightest of 16 × 16 cells, and one without a map."""
    store = tmp_path_factory.mktemp("store")
    for fit in FITS:
        spec = InputSpec(mode="L", height=SIDE, width=SIDE, fit=fit, reduction="area")
        ModelStore(store).publish(*make_bundle(fit, spec=spec, cells=(CELLS, CELLS)))
    shutil.copytree(ROOT / "model_store" / OLD, store / OLD)
    with running_server(store, store.parent / "server.log", model="stretch") as server:
        yield server


def photograph(size: tuple[int, int], *boxes: tuple[int, int, int, int], brightness: int = 255) -> Image.Image:
    image = Image.new("L", size, 30)
    for left, top, width, height in boxes:
        image.paste(brightness, (left, top, left + width, top + height))
    return image


def post(server: Server, file: bytes, **query: Any) -> httpx.Response:
    query = {"include": "", "threshold": 0.5, **query}
    return server.client.post("/score", content=file, params=query, headers={"Content-Type": "image/png"})


def result_of(server: Server, file: bytes, **query: Any) -> dict[str, Any]:
    response = post(server, file, **query)
    assert response.status_code == 200, response.text
    ScoreAnswer.model_validate_json(response.content)
    (result,) = response.json()["results"]
    assert result["is_anomaly"] is bool(result["regions"])
    return dict(result)


def picture(data_uri: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data_uri.partition(",")[2])), formats=["PNG"]))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(640, 480), (3000, 2000)])
def test_box_is_in_pixels_of_the_uploaded_image(located: Server, fit: Fit, size: tuple[int, int]) -> None:
    scale = size[0] / 640
    left, top, width, height = (round(each * scale) for each in BOX)
    (region,) = result_of(located, encode(photograph(size, (left, top, width, height)), "JPEG"), model=fit)["regions"]
    cell = max(size) / CELLS
    got_left, got_top, got_width, got_height = region["box"]
    assert abs(got_left - left) <= cell
    assert abs(got_top - top) <= cell
    assert abs(got_left + got_width - left - width) <= cell
    assert abs(got_top + got_height - top - height) <= cell
    assert 0 < region["area"] <= got_width * got_height / (size[0] * size[1]) * 1.001
    assert {got_left, got_left + got_width} <= {round(x) for x, _ in region["polygon"]} | {got_left + got_width}


def test_box_follows_the_exif_orientation(located: Server) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    lying = photograph((480, 640), (60, 500, 60, 90)).transpose(Image.Transpose.ROTATE_90)
    (region,) = result_of(located, encode(lying, "JPEG", exif=exif))["regions"]
    left, top, width, height = region["box"]
    assert left <= 60
    assert 120 <= left + width <= 180
    assert top <= 500
    assert 590 <= top + height <= 640


def test_strongest_region_comes_first_and_the_request_chooses_the_threshold(located: Server) -> None:
    image = photograph((640, 640), (80, 80, 80, 80), brightness=150)
    image.paste(250, (400, 400, 480, 480))
    file = encode(image)
    assert [each["box"] for each in result_of(located, file, threshold=0.4)["regions"]] == [
        [400, 400, 80, 80], [80, 80, 80, 80],
    ]  # fmt: skip
    assert [each["box"] for each in result_of(located, file, threshold=0.7)["regions"]] == [[400, 400, 80, 80]]
    assert result_of(located, file, threshold=0.99)["regions"] == []
    score = result_of(located, file)["score"]
    assert result_of(located, file, threshold=repr(score))["regions"] == []
    assert result_of(located, file, threshold=repr(score * (1 - 1e-9)))["regions"][0]["peak"] == score


def test_mask_shows_the_regions_at_the_size_of_the_image(located: Server) -> None:
    file = encode(photograph((640, 480), (160, 120, 80, 60)))
    result = result_of(located, file, include="mask", model="pad")
    mask, (region,) = picture(result["mask"]), result["regions"]
    assert mask.shape == (480, 640)
    rows, columns = np.nonzero(mask)
    left, top, width, height = region["box"]
    assert (columns.min(), columns.max() + 1) == pytest.approx((left, left + width), abs=1)
    assert (rows.min(), rows.max() + 1) == pytest.approx((top, top + height), abs=1)
    assert picture(result_of(located, encode(photograph((3000, 1500))), include="mask")["mask"]).shape == (512, 1024)


def overlay_of(server: Server, file: bytes, **query: Any) -> tuple[httpx.Response, NDArray[np.uint8]]:
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    response = server.client.post("/score", content=file, params={"threshold": 0.5, **query}, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    return response, np.asarray(Image.open(io.BytesIO(response.content), formats=["PNG"]))


@pytest.mark.parametrize("fit", FITS)
def test_overlay_shows_the_image_in_its_own_proportions_with_map_and_boxes(located: Server, fit: Fit) -> None:
    image = photograph((600, 400), (200, 150, 150, 100)).convert("RGB")
    image.paste((10, 60, 10), (0, 0, 20, 400))
    response, shown = overlay_of(located, encode(image), model=fit)
    result = result_of(located, encode(image), model=fit)
    assert float(response.headers["X-Anomaly-Score"]) == result["score"]
    assert response.headers["X-Anomaly-Verdict"] == "anomaly"
    assert shown.shape == (400, 600, 3)
    left, top, width, height = result["regions"][0]["box"]
    for y, x in ((top, left + 9), (top + height - 1, left + 9), (top + 9, left), (top + 9, left + width - 1)):
        assert shown[y, x].tolist() == [0, 229, 255]
    defect, untouched = shown[200, 275].astype(int), shown[300, 10].astype(int)
    assert defect[0] > 230 > defect[2]  # white under pale yellow: twice the threshold
    assert np.abs(untouched - [10, 60, 10]).max() <= 25  # the map is nearly invisible there


def test_overlay_of_a_photograph_is_upright_and_at_most_1024_pixels_long(located: Server) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    _, shown = overlay_of(located, encode(photograph((3000, 2000)), "JPEG", exif=exif))
    assert shown.shape == (1024, 683, 3)
    _, tiny = overlay_of(located, encode(photograph((2, 9))))
    assert tiny.shape == (9, 4, 3)


def test_overlay_works_for_deep_and_transparent_images_and_models_without_a_map(located: Server) -> None:
    deep = Image.fromarray(np.linspace(0, 65535, 64 * 80).astype(np.uint16).reshape(64, 80))
    for image in (deep, photograph((80, 64)).convert("RGBA")):
        for model in (*FITS, OLD):
            assert overlay_of(located, encode(image), model=model)[1].shape == (64, 80, 3)


def test_overlay_of_an_unreadable_file_is_a_problem_document(located: Server) -> None:
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    refused = located.client.post("/score", content=b"nothing", headers=headers)
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    view = located.client.post("/score?view=heatmap", content=encode(photograph((9, 9))), headers=headers)
    assert view.status_code == 422
    assert "view" in view.json()["detail"]


def test_model_without_a_map_has_no_regions(located: Server) -> None:
    response = post(located, encode(photograph((28, 28), (5, 5, 9, 9))), model=OLD, include="mask")
    ScoreAnswer.model_validate_json(response.content)
    (result,) = response.json()["results"]
    assert not {"regions", "mask"} & set(result)


def test_inference_protocol_returns_the_error_map(located: Server) -> None:
    file = encode(photograph((640, 640), (80, 120, 80, 40)))
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(file).decode()]}
    body = {"inputs": [image], "outputs": [{"name": "error_map"}]}
    (output,) = located.client.post("/v2/models/stretch/infer", json=body).json()["outputs"]
    assert output["shape"] == [1, 1, CELLS, CELLS]
    values = np.array(output["data"]).reshape(CELLS, CELLS)
    assert np.argwhere(values > 0.5).tolist() == [[3, 2], [3, 3]]
    assert values.max() == result_of(located, file)["score"]
    (described,) = (
        each for each in located.client.get("/v2/models/stretch").json()["outputs"] if each["name"] == "error_map"
    )
    assert described == {"name": "error_map", "datatype": "FP32", "shape": [-1, 1, CELLS, CELLS]}


def test_inference_protocol_refuses_a_map_that_the_model_has_not(located: Server) -> None:
    names = [each["name"] for each in located.client.get(f"/v2/models/{OLD}").json()["outputs"]]
    assert "error_map" not in names
    pixels = {"name": "image", "shape": [1, 1, 28, 28], "datatype": "UINT8", "data": [0] * 784}
    answer = located.client.post(f"/v2/models/{OLD}/infer", json={"inputs": [pixels]})
    assert [each["name"] for each in answer.json()["outputs"]] == names
    body = {"inputs": [pixels], "outputs": [{"name": "error_map"}]}
    refused = located.client.post(f"/v2/models/{OLD}/infer", json=body)
    assert refused.status_code == 400
    assert "no output error_map" in refused.json()["error"]


def test_regions_of_many_files_are_those_of_each(located: Server) -> None:
    files = [encode(photograph((320, 320), (20 * at, 20, 20, 20))) for at in range(8)]
    alone = [result_of(located, file)["regions"] for file in files]
    response = located.client.post("/score?include=&threshold=0.5", files=[("file", ("x.png", each)) for each in files])
    assert [each["regions"] for each in response.json()["results"]] == alone
