"""The examples and the live responses match the schemas of the OpenAPI document."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.support import Server, encode, gradient, running_server

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process

PNG = encode(gradient())
JSON_TYPES = ("application/json", "application/problem+json")
PUBLIC = ("/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")

Operation = dict[str, Any]


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    body: dict[str, Any] = server.client.get("/openapi.json").json()
    return body


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def strict(schema: Any) -> Any:
    """The schema without additional properties."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    members = {key: strict(value) for key, value in schema.items()}
    return {"additionalProperties": False, **members} if "properties" in schema else members


def assert_valid(document: dict[str, Any], schema: dict[str, Any], instance: Any) -> None:
    complete = strict({**schema, "components": document["components"]})
    Draft202012Validator.check_schema(complete)
    errors = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(complete).iter_errors(instance)]
    assert errors == []


def test_every_operation_has_a_description_and_a_described_tag(document: dict[str, Any]) -> None:
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    used = set()
    for method, path, operation in operations(document):
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)
        assert operation["tags"], (method, path)
        used |= set(operation["tags"])
    assert used == described


def test_examples_match_their_schemas(document: dict[str, Any]) -> None:
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
                    assert_valid(document, content["schema"], example)
                    checked += 1
    assert checked > 30


def test_errors_are_documented_as_problem_documents_and_401(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400 and path.startswith(("/v2", "/2020-11-20")):
                form = "/InferenceFailure" if path.startswith("/v2") else "/Failure"
                assert list(response["content"]) == ["application/json"], (method, path, status)
                assert response["content"]["application/json"]["schema"]["$ref"].endswith(form)
            elif int(status) >= 400 and path not in PUBLIC:
                assert list(response["content"]) == ["application/problem+json"], (method, path, status)
                assert response["content"]["application/problem+json"]["schema"]["$ref"].endswith("/Problem")
            for example in response.get("content", {}).get("application/problem+json", {}).get("examples", {}).values():
                assert example["value"]["status"] == int(status)
        assert ("401" in operation["responses"]) is (path not in PUBLIC), (method, path)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_web_pages_are_not_documented(document: dict[str, Any]) -> None:
    assert not {"/", "/docs", "/static/{path}"} & set(document["paths"])


def assert_documented(document: dict[str, Any], path: str, response: httpx.Response) -> None:
    """Asserts that status and media type are documented, and that the body matches its schema."""
    operation = document["paths"][path][response.request.method.lower()]
    documented = operation["responses"][str(response.status_code)]
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in documented["content"], (path, response.status_code, media_type)
    for name in documented.get("headers", {}):
        assert name in response.headers
    if media_type in JSON_TYPES:
        assert_valid(document, documented["content"][media_type]["schema"], response.json())


@pytest.mark.parametrize(
    "path", ["/health", "/health/live", "/health/ready", "/metrics", "/models", "/models/{name}",
             "/models/{name}/calibration", "/models/{name}/drift", "/models/{name}/report/{file}",
             "/2020-11-20/projects", "/2020-11-20/projects/{project}", "/2020-11-20/projects/{project}/models",
             "/2020-11-20/projects/{project}/models/{version}"],
)  # fmt: skip
def test_live_responses_match_the_document(document: dict[str, Any], server: Server, path: str) -> None:
    for file in ("index.html", "loss.png", "nothing.png"):
        for name in ("digits-5", "colour", "nothing"):
            assert_documented(
                document, path, server.client.get(path.format(name=name, project=name, version="latest", file=file))
            )


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
def test_live_scores_match_the_document(
    document: dict[str, Any], server: Server, options: dict[str, Any], status: int
) -> None:
    response = server.client.post("/score", **options)
    assert response.status_code == status
    assert_documented(document, "/score", response)


def template(text: str) -> str:
    """The text without the names of models, their versions and numbers."""
    for pattern, placeholder in (
        (r"(digits|mnist)-\d", "MODEL"),
        (r"\d{8}T\d{6}Z-[0-9a-f]{6}", "VERSION"),
        (r"\d[\d,.]*\d|\d", "NUMBER"),
    ):
        text = re.sub(pattern, placeholder, text)
    return text


SCORE, IMAGE = "/score", {"Content-Type": "image/png"}
WRONG_SIZE = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 9, 9], "data": [0] * 81}
UNFINISHED_FORM = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        (
            "POST",
            SCORE,
            {"content": UNFINISHED_FORM, "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        ),
        ("POST", SCORE, {"files": {"image": PNG}}),
        ("POST", SCORE, {"files": {"file": PNG}, "params": {"model": "mnist-6"}}),
        ("POST", SCORE, {"files": {"file": PNG}, "headers": {"Accept": "text/csv"}}),
        ("POST", SCORE, {"content": iter([bytes(2**20), b"1"]), "headers": IMAGE}),
        ("POST", SCORE, {"files": [("file", PNG)] * 9}),
        ("POST", SCORE, {"content": encode(gradient(2000, 2000)), "headers": IMAGE}),
        ("POST", SCORE, {"content": "text", "headers": {"Content-Type": "text/plain"}}),
        ("POST", SCORE, {"content": b"text", "headers": IMAGE}),
        ("POST", SCORE, {"content": PNG, "headers": IMAGE, "params": {"false_alarm_rate": 1e-4}}),
        ("POST", SCORE, {"content": PNG, "headers": IMAGE, "params": {"include": "heatmap"}}),
        ("POST", "/feedback", {"json": {}}),
        ("GET", "/models", {"params": {"limit": 501}}),
        ("GET", "/models/mnist-6", {}),
        ("GET", "/models/digits-5/report/notes.txt", {}),
        ("POST", "/v2/models/digits-5/infer", {"json": {"inputs": [WRONG_SIZE]}}),
        ("POST", "/v2/models/digits-5/infer", {"headers": {"Content-Encoding": "br"}}),
        ("POST", SCORE, {"content": PNG, "headers": {**IMAGE, "Content-Encoding": "br"}}),
        ("POST", SCORE, {"content": gzip.compress(PNG)[:-1], "headers": {**IMAGE, "Content-Encoding": "gzip"}}),
        ("POST", SCORE, {"json": {"images": [{}]}}),
        ("GET", "/v2/models/digits-5/versions/1", {}),
    ],
)
def test_documented_error_texts_are_those_of_the_service(
    document: dict[str, Any], server: Server, method: str, path: str, options: dict[str, Any]
) -> None:
    response = server.client.request(method, path, **options)
    (operation,) = (
        operation
        for documented_method, route, operation in operations(document)
        if documented_method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), path)
    )
    (content,) = operation["responses"][str(response.status_code)]["content"].values()
    member = "error" if path.startswith("/v2/") else "detail"
    documented = {template(example["value"][member]) for example in content["examples"].values()}
    assert template(response.json()[member]) in documented


def test_responses_without_key_or_model_match_the_document(document: dict[str, Any], tmp_path: Path) -> None:
    with running_server(tmp_path / "store", tmp_path / "log", ready=False, model="m", api_keys="k") as server:
        server.wait_for("/health", 503)
        for method, path, _ in operations(document):
            url = re.sub(r"\{\w+\}", "m", path)
            assert_documented(document, path, server.client.request(method, url))
        assert server.client.get("/openapi.json").status_code == 401
        for url in ("/", "/docs", "/static/page.js"):  # the pages ask for the key
            assert server.client.get(url).status_code == 200
        refused = server.client.post("/score", files={"file": PNG}, headers={"X-API-Key": "k"})
        assert refused.status_code == 503
        assert_documented(document, "/score", refused)
