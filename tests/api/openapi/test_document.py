"""The OpenAPI document keeps its word: examples and live answers are what its schemas say, and nothing more."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.support import Server, encode, gradient, running_server

pytestmark = pytest.mark.no_cover  # the server's lines are counted, not those of what asks it

PNG = encode(gradient())
JSON_TYPES = ("application/json", "application/problem+json")
OPEN = ("/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")

Operation = dict[str, Any]


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    described: dict[str, Any] = server.client.get("/openapi.json").json()
    return described


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def closed(schema: Any) -> Any:
    """The schema with no room for members that it does not name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    tight = {key: closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **tight} if "properties" in schema else tight


def check(document: dict[str, Any], schema: dict[str, Any], instance: Any) -> None:
    whole = closed({**schema, "components": document["components"]})
    Draft202012Validator.check_schema(whole)
    errors = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(whole).iter_errors(instance)]
    assert errors == []


def test_every_operation_is_described_and_under_a_described_tag(document: dict[str, Any]) -> None:
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    used = set()
    for method, path, operation in operations(document):
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)
        assert operation["tags"], (method, path)
        used |= set(operation["tags"])
    assert used == described


def test_every_json_answer_has_a_schema_and_examples_that_keep_to_it(document: dict[str, Any]) -> None:
    checked = 0
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                if media_type not in JSON_TYPES:
                    continue
                assert "schema" in content, (method, path, status)
                examples = [each["value"] for each in content.get("examples", {}).values()]
                examples += [content["example"]] if "example" in content else []
                assert examples, (method, path, status)
                for example in examples:
                    check(document, content["schema"], example)
                    checked += 1
    assert checked > 30


def test_errors_are_problem_documents_and_closed_routes_say_so(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400 and path.startswith("/v2"):
                assert list(response["content"]) == ["application/json"], (method, path, status)
                assert response["content"]["application/json"]["schema"]["$ref"].endswith("/InferenceFailure")
            elif int(status) >= 400 and path not in OPEN:
                assert list(response["content"]) == ["application/problem+json"], (method, path, status)
                assert response["content"]["application/problem+json"]["schema"]["$ref"].endswith("/Problem")
            for example in response.get("content", {}).get("application/problem+json", {}).get("examples", {}).values():
                assert example["value"]["status"] == int(status)
        assert ("401" in operation["responses"]) is (path not in OPEN), (method, path)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_page_is_no_part_of_the_document(document: dict[str, Any]) -> None:
    assert not {"/", "/docs", "/static/{path}"} & set(document["paths"])


def hold(document: dict[str, Any], path: str, response: httpx.Response) -> None:
    """The answer's status and type are documented, and its body keeps to the schema."""
    operation = document["paths"][path][response.request.method.lower()]
    documented = operation["responses"][str(response.status_code)]
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in documented["content"], (path, response.status_code, media_type)
    for name in documented.get("headers", {}):
        assert name in response.headers
    if media_type in JSON_TYPES:
        check(document, documented["content"][media_type]["schema"], response.json())


@pytest.mark.parametrize(
    "path", ["/health", "/health/live", "/health/ready", "/metrics", "/models", "/models/{name}",
             "/models/{name}/calibration", "/models/{name}/drift", "/models/{name}/report/{file}"],
)  # fmt: skip
def test_live_answers_keep_to_the_document(document: dict[str, Any], server: Server, path: str) -> None:
    for file in ("index.html", "loss.png", "nothing.png"):
        for name in ("digits-5", "colour", "nothing"):
            hold(document, path, server.client.get(path.format(name=name, file=file)))


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (
            {"files": [("file", PNG), ("file", b"nothing")], "params": {"include": "input,reconstruction,error_map"}},
            200,
        ),
        ({"files": {"file": PNG}, "params": {"include": ""}}, 200),
        ({"files": {"file": PNG}, "headers": {"Accept": "image/png"}}, 200),
        ({}, 400),
        ({"files": {"file": PNG}, "params": {"model": "nothing"}}, 404),
        ({"files": {"file": PNG}, "headers": {"Accept": "text/csv"}}, 406),
        ({"files": [("file", PNG)] * 9}, 413),
        ({"content": "text", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"files": [("file", b"nothing"), ("file", b"")]}, 422),
        ({"files": {"file": PNG}, "params": {"false_alarm_rate": 1e-6}}, 422),
        ({"files": {"file": PNG}, "params": {"include": "heatmap"}}, 422),
    ],
)
def test_live_scores_keep_to_the_document(
    document: dict[str, Any], server: Server, options: dict[str, Any], status: int
) -> None:
    response = server.client.post("/score", **options)
    assert response.status_code == status
    hold(document, "/score", response)


def test_a_closed_service_without_a_model_keeps_to_the_document(document: dict[str, Any], tmp_path: Path) -> None:
    with running_server(tmp_path / "store", tmp_path / "log", ready=False, model="m", api_keys="k") as server:
        server.wait_for("/health", 503)
        for method, path, _ in operations(document):
            url = re.sub(r"\{\w+\}", "m", path)
            hold(document, path, server.client.request(method, url))
        for url in ("/", "/docs", "/static/page.js"):
            assert server.client.get(url).status_code == 401
        refused = server.client.post("/score", files={"file": PNG}, headers={"X-API-Key": "k"})
        assert refused.status_code == 503
        hold(document, "/score", refused)
