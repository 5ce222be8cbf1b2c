"""docs/typescript/anomaly.d.ts is in step with the OpenAPI document."""

import runpy
from typing import Any

from tests.support import ROOT, Server

FOLDER = ROOT / "docs" / "typescript"
GENERATE: dict[str, Any] = runpy.run_path(str(FOLDER / "generate.py"))


def test_typescript_types_are_those_of_the_served_document(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    header = (FOLDER / "anomaly.d.ts").read_text().splitlines()[0]
    assert header == f"// OpenAPI document: sha256 {GENERATE['digest'](document)}", "run `make types`"


def test_examples_and_the_version_of_the_service_change_no_types(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    before = GENERATE["digest"](document)
    document["info"]["version"] = "99"
    document["components"]["schemas"]["ScoreAnswer"]["example"] = {}
    assert GENERATE["digest"](document) == before
    document["components"]["schemas"]["ScoreAnswer"]["properties"]["threshold"]["type"] = "string"
    assert GENERATE["digest"](document) != before
