"""The Kubernetes manifests match the published schemas and the service."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.api.http.shutdown import LONGEST_S
from app.api.settings import PREFIX, Settings, read_settings
from app.api.telemetry.metrics import Metrics
from app.inference.bundles.store import ModelStore
from app.inference.serving.warm_up import LARGE_BATCH
from tests.support import ROOT, Server, make_bundle, running_server

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


FILL = RESOURCES[HERE / "components" / "store-volume" / "fill.yaml"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("pod", [POD, IN_POD, FILL], ids=["deployment", "kserve", "fill"])
def test_pods_are_hardened(pod: Document) -> None:
    assert_hardened(pod)


def test_label_is_the_same_everywhere() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    monitor = RESOURCES[HERE / "components" / "prometheus" / "service-monitor.yaml"]["spec"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert RESOURCES[BASE / "service.yaml"]["spec"]["selector"] == labels
    assert RESOURCES[BASE / "disruption-budget.yaml"]["spec"]["selector"]["matchLabels"] == labels
    assert RESOURCES[BASE / "network-policy.yaml"]["spec"]["podSelector"]["matchLabels"] == labels
    assert {spread["labelSelector"]["matchLabels"].items() == labels.items() for spread in
            POD["topologySpreadConstraints"]} == {True}  # fmt: skip
    assert load(BASE / "kustomization.yaml")["labels"] == [{"pairs": labels}]  # also sets the labels of the Service
    assert monitor["selector"]["matchLabels"] == labels


def test_port_is_the_same_everywhere() -> None:
    (port,) = CONTAINER["ports"]
    (service,) = RESOURCES[BASE / "service.yaml"]["spec"]["ports"]
    (rule,) = RESOURCES[BASE / "network-policy.yaml"]["spec"]["ingress"]
    (endpoint,) = RESOURCES[HERE / "components" / "prometheus" / "service-monitor.yaml"]["spec"]["endpoints"]
    assert port["containerPort"] == Settings.model_fields["port"].default
    assert service["targetPort"] == endpoint["port"] == service["name"] == port["name"]
    assert rule["ports"] == [{"protocol": "TCP", "port": port["name"]}]


def test_network_policy_allows_no_egress() -> None:
    policy = RESOURCES[BASE / "network-policy.yaml"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    for sources in policy["ingress"]:
        assert all(source["namespaceSelector"]["matchLabels"] for source in sources["from"])


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


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that drains long enough for the probes."""
    directory = tmp_path_factory.mktemp("probed")
    ModelStore(directory / "store").publish(*make_bundle("m"))
    with running_server(directory / "store", directory / "log", model="m", drain_s=2) as server:
        yield server


def statuses(server: Server, container: Document) -> dict[str, int]:
    """The status that each probe gets; like the kubelet, with a new connection for each."""
    url = f"http://127.0.0.1:{server.port}"
    return {
        kind: httpx.get(url + container[f"{kind}Probe"]["httpGet"]["path"], trust_env=False).status_code
        for kind in ("startup", "liveness", "readiness")
    }


class TestProbes:
    """The order matters: the last test ends the server."""

    CONTAINERS = (CONTAINER, RUNTIME["containers"][0])

    def test_started_server_passes_all_probes(self, probed: Server) -> None:
        probed.wait_for(CONTAINER["startupProbe"]["httpGet"]["path"], 200)
        for container in self.CONTAINERS:
            assert set(statuses(probed, container).values()) == {200}
        (endpoint,) = RESOURCES[HERE / "components" / "prometheus" / "service-monitor.yaml"]["spec"]["endpoints"]
        assert "anomaly_" in probed.client.get(endpoint["path"]).text

    def test_server_without_model_is_alive_but_not_ready(self, tmp_path: Path) -> None:
        (tmp_path / "store").mkdir()
        with running_server(tmp_path / "store", tmp_path / "log", ready=False) as server:
            for container in self.CONTAINERS:
                assert statuses(server, container) == {"startup": 503, "liveness": 200, "readiness": 503}

    def test_draining_server_is_alive_but_not_ready(self, probed: Server) -> None:
        probed.process.terminate()
        probed.wait_for(CONTAINER["readinessProbe"]["httpGet"]["path"], 503)
        for container in self.CONTAINERS:
            seen = statuses(probed, container)
            assert (seen["liveness"], seen["readiness"]) == (200, 503)


def test_grace_period_covers_draining() -> None:
    """preStop, then SIGTERM with draining and the time for accepted requests; SIGKILL must come later."""
    needed = Settings.model_fields["drain_s"].default + LONGEST_S
    for pod in (POD, IN_POD):
        (container,) = pod["containers"]
        pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pre_stop + needed < pod["terminationGracePeriodSeconds"] <= pre_stop + needed + 10
        # Load balancers that use the readiness probe must notice during preStop as well.
        probe = container["readinessProbe"]
        assert probe["failureThreshold"] * probe["periodSeconds"] < pre_stop


def test_rollout_keeps_ready_pods() -> None:
    strategy = DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]
    assert strategy["maxUnavailable"] == 0
    assert RESOURCES[BASE / "disruption-budget.yaml"]["spec"]["maxUnavailable"] == 1
    assert RESOURCES[BASE / "autoscaler.yaml"]["spec"]["minReplicas"] > 1


def test_kserve_runtime_serves_the_model_of_the_inference_service() -> None:
    (container,) = RUNTIME["containers"]
    name = INFERENCE["metadata"]["name"]
    settings = read_settings([argument.replace("{{.Name}}", name) for argument in container["args"]])
    assert settings.model == name
    assert str(settings.model_store) == "/mnt/models"  # where KServe mounts storageUri
    (port,) = container["ports"]
    probed = {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")}
    assert (
        {settings.port, int(RUNTIME["annotations"]["prometheus.kserve.io/port"])} == probed == {port["containerPort"]}
    )
    assert PREDICTOR["model"]["protocolVersion"] in RUNTIME["protocolVersions"]
    formats = [offered["name"] for offered in RUNTIME["supportedModelFormats"]]
    assert PREDICTOR["model"]["modelFormat"]["name"] in formats


class TestAutoscaler:
    PARTS = HERE / "components" / "prometheus"
    (RULE,) = load(PARTS / "adapter.yaml")["rules"]["custom"]
    METRICS = RESOURCES[PARTS / "autoscaler.yaml"]["spec"]["metrics"]
    TARGET = float(next(each["pods"]["target"]["averageValue"] for each in METRICS if each["type"] == "Pods"))
    SERIES = RULE["seriesQuery"].partition("{")[0]

    def test_autoscaler_uses_the_metric_of_the_adapter(self) -> None:
        (name,) = [metric["pods"]["metric"]["name"] for metric in self.METRICS if metric["type"] == "Pods"]
        assert name == self.RULE["name"]["as"]

    def test_service_exports_the_metric(self) -> None:
        exposition = Metrics().exposition().decode()
        kinds = {family.name: family.type for family in text_string_to_metric_families(exposition)}
        assert kinds[self.SERIES] == "gauge"
        assert self.SERIES in self.RULE["metricsQuery"]

    def test_target_is_below_the_queue_size(self) -> None:
        assert self.TARGET <= LARGE_BATCH
        assert Settings.model_fields["queue_size"].default >= 4 * self.TARGET

    @pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
    def test_adapter_query_is_the_mean_of_each_pod(self, tmp_path: Path) -> None:
        """With the placeholders filled in for two pods, and evaluated by promtool."""
        matchers = 'namespace="anomaly",pod=~"a|b"'
        query = self.RULE["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", matchers)
        other = '{namespace="elsewhere",pod="a"}'
        series = [(f'{self.SERIES}{{namespace="anomaly",pod="a"}}', "0 10 20 30 40 50"),
                  (f'{self.SERIES}{{namespace="anomaly",pod="b"}}', "4 4 4 4 4 4"),
                  (f"{self.SERIES}{other}", "9 9 9 9 9 9")]  # fmt: skip
        samples = [{"labels": '{pod="a"}', "value": 25}, {"labels": '{pod="b"}', "value": 4}]
        test = {
            "evaluation_interval": "15s",
            "tests": [
                {
                    "interval": "15s",
                    "input_series": [{"series": name, "values": values} for name, values in series],
                    "promql_expr_test": [{"expr": query, "eval_time": "74s", "exp_samples": samples}],
                }
            ],
        }
        (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
        done = subprocess.run(
            ["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
