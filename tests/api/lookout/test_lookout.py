"""Amazon Lookout for Vision's API: with its own client, and over plain HTTP."""

import base64
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.inference.bundles.store import ModelStore
from tests.support import ROOT, Server, encode, make_bundle, running_server

KEY = "schlüssel/1"
SIGNED = "AWS4-HMAC-SHA256 Credential={}/20261127/eu-west-1/lookoutvision/aws4_request, SignedHeaders=host, Signature=0"


@pytest.fixture(scope="module")
def lookout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with a model that has two versions, one with a map, and two keys."""
    root = tmp_path_factory.mktemp("lookout")
    store = ModelStore(root / "store")
    for name, seed in (("parts", 0), ("parts", 1), ("other", 2)):
        store.publish(*make_bundle(name, seed=seed, version=f"20261127T12000{seed}Z-aaaaaa"))
    store.publish(*make_bundle("mapped", cells=(4, 4)))
    shutil.copytree(ROOT / "model_store" / "mnist-5", root / "store" / "mnist-5")
    with running_server(root / "store", root / "log", model="parts", api_keys=f"other key,AKIAEXAMPLE,{KEY}") as server:
        server.client.headers["X-API-Key"] = "AKIAEXAMPLE"
        yield server


def noise(seed: int, side: int = 8) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)
    return encode(Image.fromarray(values))


def lookout_python() -> str:
    """An interpreter with botocore 1.40.60, the last version that has this service."""
    given = os.environ.get("LOOKOUT_PYTHON")
    if given is None and importlib.util.find_spec("boto3") is None:
        pytest.skip("boto3 is not installed; LOOKOUT_PYTHON can name an interpreter that has version 1.40.60")
    return given or sys.executable


def test_amazons_client(lookout: Server, tmp_path: Path) -> None:
    (tmp_path / "white.png").write_bytes(encode(Image.new("L", (8, 8), 255)))
    (tmp_path / "grey.png").write_bytes(encode(Image.new("L", (8, 8), 128)))
    arguments = [f"http://127.0.0.1:{lookout.port}", "AKIAEXAMPLE", "mapped"]
    files = [str(tmp_path / "white.png"), str(tmp_path / "grey.png")]
    script = Path(__file__).with_name("lookout_client.py")
    done = subprocess.run(
        [lookout_python(), str(script), *arguments, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    received: dict[str, Any] = json.loads(done.stdout)
    assert received["projects"] == ["mapped", "mnist-5", "other", "parts"]
    assert received["pages"] == [["mapped"], ["mnist-5"], ["other"], ["parts"]]
    assert received["project"]["ProjectDescription"]["ProjectName"] == "mapped"
    assert received["model"]["ModelVersion"] == received["versions"][0]
    assert received["model"]["Status"] == "HOSTED"  # it has just scored
    assert (received["created"] > 2025, received["start"], received["stop"]) == (True, "HOSTED", "TRAINED")
    for file, result in zip(files, received["results"], strict=True):
        scored = lookout.client.post("/score?model=mapped&include=", files={"file": Path(file).read_bytes()}).json()
        (expected,) = scored["results"]
        p_value = expected["p_value"]
        assert result["IsAnomalous"] is expected["is_anomaly"]
        assert result["Confidence"] == (1 - p_value if expected["is_anomaly"] else p_value)
        assert result["Source"] == {"Type": "direct"}
        assert ("AnomalyMask" in result) is ("Anomalies" in result) is expected["is_anomaly"]
    white, grey = received["results"]
    assert (white["IsAnomalous"], grey["IsAnomalous"]) == (True, False)
    assert received["first"] is received["latest"] is True
    assert received["unknown_project"] == {
        "class": "ResourceNotFoundException", "code": "ResourceNotFoundException",
        "message": "there is no model named 'nothing'", "status": 404, "resource": "PROJECT",
    }  # fmt: skip
    assert (received["unknown_version"]["class"], received["unknown_version"]["resource"]) == (
        "ResourceNotFoundException", "MODEL",
    )  # fmt: skip
    assert received["no_image"]["class"] == "ValidationException"
    assert "not a readable image" in received["no_image"]["message"]
    assert (received["wrong_key"]["class"], received["wrong_key"]["status"]) == ("AccessDeniedException", 401)


def test_mask_shows_the_places_above_the_threshold(lookout: Server) -> None:
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (4, 4, 6, 8))  # two of its 4 × 4 cells
    result = detect(lookout, "mapped", encode(image))
    picture = Image.open(io.BytesIO(base64.b64decode(result["AnomalyMask"]))).convert("RGB")
    assert picture.size == (8, 8)
    pixels = np.asarray(picture).reshape(-1, 3)
    background, anomaly = result["Anomalies"]
    assert (background["Name"], anomaly["Name"]) == ("background", "anomaly")
    for label in (background, anomaly):
        colour = [int(label["PixelAnomaly"]["Color"][at : at + 2], 16) for at in (1, 3, 5)]
        area = float((pixels == colour).all(1).mean())
        assert label["PixelAnomaly"]["TotalPercentageArea"] == pytest.approx(area)
    assert anomaly["PixelAnomaly"]["TotalPercentageArea"] == pytest.approx(1 / 8)


def test_mask_has_the_size_of_the_image(lookout: Server) -> None:
    result = detect(lookout, "mapped", encode(Image.new("L", (1500, 40), 255)))
    assert Image.open(io.BytesIO(base64.b64decode(result["AnomalyMask"]))).size == (1500, 40)


def test_models_without_a_map_have_no_mask(lookout: Server) -> None:
    result = detect(lookout, "mnist-5", encode(Image.new("L", (28, 28), 255)))
    assert set(result) == {"Source", "IsAnomalous", "Confidence"}


def detect(server: Server, project: str, image: bytes, version: str = "latest") -> dict[str, Any]:
    response = post(server, f"/{project}/models/{version}/detect", image)
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()["DetectAnomalyResult"]
    return result


def post(server: Server, path: str, content: bytes = b"", **headers: str) -> httpx.Response:
    return server.client.post(f"/2020-11-20/projects{path}", content=content, headers=headers)


def test_only_the_served_version_scores(lookout: Server) -> None:
    models = lookout.client.get("/2020-11-20/projects/parts/models").json()["Models"]
    newest, oldest = (each["ModelVersion"] for each in models)
    assert newest > oldest
    assert [each["Status"] for each in models] == ["HOSTED", "TRAINED"]
    for version in (newest, "latest", "2"):
        detect(lookout, "parts", noise(1), version)
    for version in (oldest, "1", "0", "3", "9" * 400, "%00", "²"):
        refused = post(lookout, f"/parts/models/{version}/detect", noise(1))
        assert (refused.status_code, refused.headers["x-amzn-ErrorType"]) == (404, "ResourceNotFoundException")
        assert refused.json()["ResourceType"] == "MODEL"
    described = lookout.client.get("/2020-11-20/projects/parts/models/1").json()["ModelDescription"]
    assert (described["ModelVersion"], described["Status"]) == (oldest, "TRAINED")


def test_models_are_listed_in_pages(lookout: Server) -> None:
    def page(**query: str | int) -> dict[str, Any]:
        answer = lookout.client.get(
            "/2020-11-20/projects/parts/models",
            params={"maxResults": "1", **{name: str(value) for name, value in query.items()}},
        )
        body: dict[str, Any] = answer.json()
        return body

    first = page()
    second = page(nextToken=first["NextToken"])
    assert "NextToken" not in second
    assert [each["Models"][0]["ModelVersion"] for each in (first, second)] == sorted(
        (each["Models"][0]["ModelVersion"] for each in (first, second)), reverse=True
    )
    assert page(maxResults=0)["Message"].startswith("maxResults: ")


def test_stopped_model_is_loaded_again_and_the_default_stays(lookout: Server) -> None:
    def loaded() -> set[str]:
        return {each["name"] for each in lookout.client.get("/health").json()["models"]}

    assert post(lookout, "/other/models/latest/start", b"{}").json() == {"Status": "HOSTED"}
    assert "other" in loaded()
    stopped = post(lookout, "/other/models/latest/stop")
    assert (stopped.status_code, stopped.json()) == (202, {"Status": "TRAINED"})
    assert "other" not in loaded()
    detect(lookout, "other", noise(1))
    assert post(lookout, "/parts/models/latest/stop").json() == {"Status": "HOSTED"}
    assert "parts" in loaded()


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (SIGNED.format("AKIAEXAMPLE"), 200),
        (SIGNED.format(KEY), 200),
        ("AWS4-HMAC-SHA256 SignedHeaders=host, " + SIGNED.format("AKIAEXAMPLE").split(" ")[1], 200),
        (SIGNED.format("AKIAEXAMPL"), 401),
        (SIGNED.format(""), 401),
        (SIGNED.format("AKIAEXAMPLE").replace("aws4_request", "other"), 401),
        ("AWS4-HMAC-SHA256 AKIAEXAMPLE", 401),
        ("AWS4-HMAC-SHA256", 401),
        ("Basic Credential=AKIAEXAMPLE/20261127/eu-west-1/lookoutvision/aws4_request", 401),
    ],
)
def test_access_key_id_is_the_key(lookout: Server, authorization: str, status: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{lookout.port}", trust_env=False) as client:
        answer = client.get("/2020-11-20/projects", headers={b"Authorization": authorization.encode()})
    assert answer.status_code == status
    assert ("x-amzn-ErrorType" in answer.headers) is (status == 401)


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/nothing", 404, "ResourceNotFoundException"),
        ("GET", "/parts/nothing", 404, "ResourceNotFoundException"),
        ("GET", "/..%2Fparts", 404, "ResourceNotFoundException"),
        ("DELETE", "/parts", 405, "ValidationException"),
        ("POST", "/parts/models/latest/detect", 400, "ValidationException"),
    ],
)
def test_errors_have_the_form_that_clients_expect(
    lookout: Server, method: str, path: str, status: int, name: str
) -> None:
    answer = lookout.client.request(method, f"/2020-11-20/projects{path}")
    assert (answer.status_code, answer.headers.get("x-amzn-ErrorType")) == (status, name)
    assert answer.json()["Message"]
