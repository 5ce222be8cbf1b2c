"""``out_of_scope`` over HTTP: images that do not look like the training images at all."""

import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import Server, encode
from training.run import Published

RANDOM = np.random.default_rng(0)
FOREIGN = {
    "white": np.full((40, 40), 255, np.uint8),
    "noise": RANDOM.integers(0, 256, (8, 8), np.uint8),
    "black": np.zeros((8, 8), np.uint8),
}
SENTENCE = "does not look like the training images at all"


def scored(server: Server, file: bytes, **query: Any) -> dict[str, Any]:
    answer = server.client.post("/score", params={"include": "", **query}, files={"file": ("a.png", file)})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["results"][0]
    return result


def is_said(result: dict[str, Any]) -> bool:
    return any(SENTENCE in warning for warning in result["warnings"])


def counted(server: Server) -> float:
    text = server.client.get("/metrics").text
    found = re.search(r'^anomaly_out_of_scope_total\{model="digits-5"\} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_image_is_out_of_scope_with_a_warning_and_a_large_region(server: Server, kind: str) -> None:
    result = scored(server, encode(Image.fromarray(FOREIGN[kind])))
    assert (result["out_of_scope"], result["is_anomaly"], result["verdict"]) == (True, True, "anomaly")
    assert is_said(result)
    assert sum(region["area"] for region in result["regions"]) > 0.5
    assert result["regions"][0]["peak"] == pytest.approx(result["score"])


def test_out_of_scope_images_are_counted(server: Server, digit_files: dict[int, list[bytes]]) -> None:
    before = counted(server)
    for image in FOREIGN.values():
        scored(server, encode(Image.fromarray(image)))
    scored(server, digit_files[5][0])
    tries = 500  # requests are counted together, some milliseconds after their answers
    while counted(server) < before + len(FOREIGN) and tries:
        tries -= 1
    assert counted(server) == before + len(FOREIGN)


def test_typical_image_is_in_scope(server: Server, digit_files: dict[int, list[bytes]]) -> None:
    result = scored(server, digit_files[5][0])
    assert (result["out_of_scope"], is_said(result)) == (False, False)


def test_out_of_scope_image_is_never_normal_whatever_the_threshold(server: Server, trained: Published) -> None:
    file = encode(Image.fromarray(FOREIGN["white"]))
    for query in ({"threshold": 0.0}, {"false_alarm_rate": 0.5}, {"threshold": 1e9}, {"fdr": 0.5}):
        result = scored(server, file, **query)
        assert not (result["out_of_scope"] and result["verdict"] == "normal")
        assert result["out_of_scope"] is result["is_anomaly"] is is_said(result)
    assert scored(server, file, threshold=1e9)["verdict"] == "normal"


def test_model_card_has_the_limit(server: Server, trained: Published) -> None:
    scope = server.client.get("/models/digits-5").json()["scope"]
    assert trained.manifest.scope is not None
    assert scope == trained.manifest.scope.model_dump()
    assert (scope["statistics"], scope["rate"]) == ("pixels", 0.001)
    assert scope["limit"] > scope["largest"] > 0


def test_bundle_of_before_this_check_says_that_nothing_is_out_of_scope(server: Server) -> None:
    result = scored(server, encode(Image.fromarray(FOREIGN["white"])), model="colour")
    assert result["out_of_scope"] is False
    assert server.client.get("/models/colour").json()["scope"] is None
    body = {"inputs": [{"name": "image", "shape": [1, 3, 8, 8], "datatype": "UINT8", "data": [255] * 192}]}
    outputs = server.client.post("/v2/models/colour/infer", json=body).json()["outputs"]
    assert "out_of_scope" not in {each["name"] for each in outputs}


def test_open_inference_protocol_has_it_as_an_output(server: Server) -> None:
    body = {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "UINT8", "data": [255] * 64}]}
    outputs = server.client.post("/v2/models/digits-5/infer", json=body).json()["outputs"]
    (found,) = (each for each in outputs if each["name"] == "out_of_scope")
    assert (found["datatype"], found["shape"], found["data"]) == ("BOOL", [1], [True])
