"""The Kubernetes manifests match the published schemas."""

import os
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest

from tests.deploy.kubernetes.manifests import (
    CUSTOM,
    DEPLOYMENT,
    IN_POD,
    RUNTIME,
    TOP,
    WHOLE,
    kustomize,
    name_of,
    validate,
)


class TestSchemas:
    @pytest.mark.parametrize("path", [path for path in WHOLE if WHOLE[path]["kind"] not in CUSTOM], ids=name_of)
    def test_files_match_the_schemas(self, path: Path) -> None:
        validate(WHOLE[path])

    @pytest.mark.parametrize("folder", TOP, ids=name_of)
    def test_kustomize_output_matches_the_schemas(self, folder: Path) -> None:
        documents = kustomize(folder)
        assert len(documents) >= 2
        for document in documents:
            if document["kind"] not in CUSTOM:
                validate(document)

    def test_unknown_field_is_detected(self) -> None:
        wrong = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replica": 3}}
        with pytest.raises(kubernetes_validate.ValidationError):
            validate(wrong)

    def test_pod_fields_of_the_inference_service_match_the_schema(self) -> None:
        kserve_fields = {"model", "minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}
        spec = {key: value for key, value in IN_POD.items() if key not in kserve_fields}
        spec["volumes"] = RUNTIME["volumes"]
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "m"}, "spec": spec})

    @pytest.mark.parametrize("kind", ["InferenceService", "ServingRuntime"])
    def test_kserve_sdk_has_every_field(self, kind: str) -> None:
        python = os.environ.get("KSERVE_PYTHON")
        if python is None:
            pytest.skip("needs KSERVE_PYTHON, the interpreter of an environment with the package kserve")
        (path,) = [path for path, document in WHOLE.items() if document["kind"] == kind]
        done = subprocess.run(
            [python, Path(__file__).with_name("kserve_models.py"), path],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
