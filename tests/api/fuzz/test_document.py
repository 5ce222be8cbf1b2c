"""Generated requests against the OpenAPI document."""

from contextlib import suppress
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import BaseSchema, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests import damage
from tests.api.fuzz.conftest import SEEDS, Target, examples

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process


class TestOpenApi:
    """Responses to requests that follow or violate the OpenAPI document match the document."""

    CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)

    @pytest.fixture
    def document(self, target: Target) -> BaseSchema:
        files = list(SEEDS.values())
        for media_type in ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff"):
            schemathesis.openapi.media_type(media_type, st.sampled_from(files) | damage.damaged(files))
        base = f"http://127.0.0.1:{target.server.port}"
        return schemathesis.openapi.from_url(f"{base}/openapi.json", config=schemathesis.Config())

    @pytest.mark.parametrize("mode", list(GenerationMode))
    def test_generated_requests_match_the_document(
        self, target: Target, document: BaseSchema, mode: GenerationMode
    ) -> None:
        tested = []
        with requests.Session() as session:
            for found in document.get_all_operations():
                assert isinstance(found, Ok)
                operation = found.ok()

                @examples(30 if operation.method == "post" else 8)
                @given(operation.as_strategy(generation_mode=mode))
                def send(case: schemathesis.Case[Any]) -> None:
                    case.call_and_validate(session=session, checks=list(self.CHECKS), timeout=10)

                with suppress(Unsatisfiable):  # an operation without parameters has no invalid requests
                    send()
                    tested.append(operation.label)
        reads = {"GET /health", "GET /models", "GET /models/{name}", "GET /metrics"}
        scoring = {"POST /score", "POST /v2/models/{name}/infer", "POST /v2/models/{name}/versions/{version}/infer"}
        assert scoring | (reads if mode is GenerationMode.POSITIVE else set()) <= set(tested)
