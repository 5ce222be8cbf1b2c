"""The kustomizations list what is there, and their components give pods that work."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.api.settings import PREFIX, Settings
from app.client.watching.options import parse_options
from app.client.watching.sources.address import URL_VARIABLE
from app.inference.bundles.store import ModelStore
from tests.deploy.kubernetes.manifests import (
    BASE,
    CONTAINER,
    CUSTOM,
    HERE,
    KUSTOMIZATIONS,
    NO_RESOURCES,
    PATCHES,
    RESOURCES,
    WHOLE,
    assert_hardened,
    kustomize,
    load,
    name_of,
    validate,
)
from tests.support import ROOT


class TestKustomizations:
    @pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=name_of)
    def test_listed_files_exist(self, path: Path) -> None:
        document = load(path)
        for target in [*document.get("resources", []), *document.get("components", [])]:
            assert (path.parent / target).exists(), target
        for patch in document.get("patches", []):
            assert (path.parent / patch["path"]).is_file()

    def test_all_files_are_listed(self) -> None:
        listed = {
            (path.parent / target).resolve()
            for path in KUSTOMIZATIONS
            for target in [*load(path).get("resources", []), *(each["path"] for each in load(path).get("patches", []))]
        }
        assert {path for path in RESOURCES if path.name not in NO_RESOURCES} <= listed

    @pytest.mark.parametrize("path", PATCHES, ids=name_of)
    def test_patches_apply_to_resources_of_the_base(self, path: Path) -> None:
        patch = RESOURCES[path]
        (changed,) = [
            document
            for document in WHOLE.values()
            if (document["kind"], document["metadata"].get("name")) == (patch["kind"], patch["metadata"]["name"])
        ]
        assert changed["apiVersion"] == patch["apiVersion"]
        for container in patch["spec"].get("template", {}).get("spec", {}).get("containers", []):
            assert container["name"] == CONTAINER["name"]

    @pytest.mark.parametrize("store", ["store-image", "store-volume"])
    def test_both_store_components_work(self, store: str, tmp_path: Path) -> None:
        shutil.copytree(HERE, tmp_path / "kubernetes")
        overlay = tmp_path / "kubernetes" / "overlays" / "production"
        file = overlay / "kustomization.yaml"
        changed, count = re.subn(r"components/store-\w+", f"components/{store}", file.read_text(), count=1)
        assert count
        file.write_text(changed)
        documents = kustomize(overlay)
        (pod,) = [document["spec"]["template"]["spec"] for document in documents if document["kind"] == "Deployment"]
        for document in documents:
            if document["kind"] not in CUSTOM:
                validate(document)
        assert_hardened(pod)
        (container,) = pod["containers"]
        store_path = {variable["name"]: variable["value"] for variable in container["env"]}[f"{PREFIX}MODEL_STORE"]
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert mounts[store_path]["readOnly"]
        assert set(mounts) == {store_path, "/tmp"}
        assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in pod["volumes"]}

    def test_component_gpu_requests_the_device_that_the_setting_names(self, tmp_path: Path) -> None:
        shutil.copytree(HERE, tmp_path / "kubernetes")
        overlay = tmp_path / "kubernetes" / "overlays" / "production"
        file = overlay / "kustomization.yaml"
        file.write_text(file.read_text().replace("components:\n", "components:\n  - ../../components/gpu\n"))
        (deployment,) = [document for document in kustomize(overlay) if document["kind"] == "Deployment"]
        validate(deployment)
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert {"name": f"{PREFIX}DEVICE", "value": "cuda"} in container["env"]
        assert container["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": "1"}
        assert container["resources"]["requests"] == {"cpu": "1", "memory": "2Gi"}

    def test_component_watch_adds_a_hardened_watcher_of_a_camera(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(HERE, tmp_path / "kubernetes")
        overlay = tmp_path / "kubernetes" / "overlays" / "production"
        file = overlay / "kustomization.yaml"
        changed, count = re.subn("# - (../../components/watch)", r"- \1", file.read_text())
        assert count == 1
        file.write_text(changed)
        documents = {(each["kind"], each["metadata"]["name"]): each for each in kustomize(overlay)}
        for document in documents.values():
            if document["kind"] not in CUSTOM:
                validate(document)
        deployment = documents["Deployment", "anomaly-watch"]["spec"]
        assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
        pod = deployment["template"]["spec"]
        assert_hardened(pod)
        (container,) = pod["containers"]
        assert container["image"].startswith("registry.example.com/anomaly-watch:")
        monkeypatch.setenv(URL_VARIABLE, "http://camera/picture")  # from the Secret
        options = parse_options(container["args"])
        assert options.camera == "line-1"
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {str(options.archive), "/tmp"}
        assert documents["PersistentVolumeClaim", "anomaly-archive"]
        service = documents["Service", "anomaly"]
        assert options.url == f"http://{service['metadata']['name']}"
        assert [port["port"] for port in service["spec"]["ports"]] == [80]
        watcher, served = deployment["template"]["metadata"]["labels"], service["spec"]["selector"]
        assert deployment["selector"]["matchLabels"] == watcher != served
        own, added = (documents["NetworkPolicy", name]["spec"] for name in ("anomaly-watch", "anomaly-from-watch"))
        assert (
            own["podSelector"]["matchLabels"] == added["ingress"][0]["from"][0]["podSelector"]["matchLabels"] == watcher
        )
        assert added["podSelector"]["matchLabels"] == own["egress"][0]["to"][0]["podSelector"]["matchLabels"] == served
        assert own["ingress"] == []

    def test_overlay_keeps_the_rest_of_the_base(self) -> None:
        documents = {document["kind"]: document for document in kustomize(HERE / "overlays" / "production")}
        scaled = documents["HorizontalPodAutoscaler"]["spec"]
        assert scaled["behavior"] == RESOURCES[BASE / "autoscaler.yaml"]["spec"]["behavior"]
        assert [metric["type"] for metric in scaled["metrics"]] == ["Resource", "Pods"]
        assert documents["ConfigMap"]["data"].keys() == {"ANOMALY_LOG_LEVEL", "ANOMALY_MODEL"}
        assert {
            document["metadata"].get("namespace") for kind, document in documents.items() if kind != "Namespace"
        } == {documents["Namespace"]["metadata"]["name"]}


def test_init_container_copies_the_store(tmp_path: Path) -> None:
    """Runs the command of the init container with local paths."""
    part = HERE / "components" / "store-image"
    assert "\nCOPY model_store /model_store\n" in (part / "store.Dockerfile").read_text()
    (init,) = RESOURCES[part / "deployment.yaml"]["spec"]["template"]["spec"]["initContainers"]
    local = {"/model_store/.": f"{ROOT}/model_store/.", init["volumeMounts"][0]["mountPath"]: str(tmp_path)}
    subprocess.run([local.get(word, word) for word in init["command"]], check=True)
    store, ours = ModelStore(tmp_path), ModelStore(ROOT / "model_store")
    assert store.current("mnist-5") == ours.current("mnist-5")
    store.load("mnist-5", store.current("mnist-5"))


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=name_of)
def test_settings_are_valid(path: Path) -> None:
    """The service would ignore unknown names and not start with invalid values."""
    values = dict(
        literal.split("=", 1)
        for generator in load(path).get("configMapGenerator", [])
        for literal in generator["literals"]
    )
    names = {name.removeprefix(PREFIX).lower(): value for name, value in values.items()}
    assert set(names) <= set(Settings.model_fields)
    Settings(**names)
