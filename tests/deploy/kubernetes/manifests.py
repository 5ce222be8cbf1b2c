"""The Kubernetes manifests, and what the tests ask of several of them."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support import ROOT

HERE = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.30", "1.37")  # preStop's sleep is on by default since 1.30
CUSTOM = {
    "ServiceMonitor",
    "ServingRuntime",
    "InferenceService",
}  # custom resources, which Kubernetes has no schemas for
NO_RESOURCES = {"adapter.yaml", "fill.yaml"}  # values for Helm; a Job to create by hand
KUSTOMIZATIONS = sorted(HERE.rglob("kustomization.yaml"))
TOP = [HERE / "base", HERE / "overlays" / "production", HERE / "kserve"]

Document = dict[str, Any]


def load(path: Path) -> Document:
    document = yaml.safe_load(path.read_text())
    assert isinstance(document, dict)
    return document


RESOURCES = {
    path: load(path) for path in sorted(HERE.rglob("*.yaml")) if path.name not in {"kustomization.yaml", "adapter.yaml"}
}
PATCHES = [
    (folder.parent / patch["path"]).resolve() for folder in KUSTOMIZATIONS for patch in load(folder).get("patches", [])
]
WHOLE = {path: document for path, document in RESOURCES.items() if path not in PATCHES}
BASE = HERE / "base"
DEPLOYMENT = RESOURCES[BASE / "deployment.yaml"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
RUNTIME = RESOURCES[HERE / "kserve" / "serving-runtime.yaml"]["spec"]
INFERENCE = RESOURCES[HERE / "kserve" / "inference-service.yaml"]
PREDICTOR = INFERENCE["spec"]["predictor"]
IN_POD = PREDICTOR | {"containers": RUNTIME["containers"]}


def name_of(path: Path) -> str:
    return str(path.relative_to(HERE))


def kustomize(folder: Path) -> list[Document]:
    """The output of kustomize for a folder."""
    if shutil.which("kustomize"):
        arguments = ["kustomize", "build"]
    elif shutil.which("kubectl"):
        arguments = ["kubectl", "kustomize"]
    else:
        pytest.skip("neither kustomize nor kubectl is installed")
    done = subprocess.run([*arguments, folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def validate(document: Document) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


def assert_hardened(pod: Document) -> None:
    """Checks the restrictions of docker-compose.yml and of the restricted Pod Security Standard."""
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # they would set ANOMALY_PORT to tcp://…
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert "cpu" in container["resources"]["requests"]
