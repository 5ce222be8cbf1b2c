"""The pods match the service: hardening, labels, ports, probes, times."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.api.http.shutdown import LONGEST_S
from app.api.settings import Settings, read_settings
from app.inference.bundles.store import ModelStore
from tests.deploy.kubernetes.manifests import (
    BASE,
    CONTAINER,
    DEPLOYMENT,
    HERE,
    IN_POD,
    INFERENCE,
    POD,
    PREDICTOR,
    RESOURCES,
    RUNTIME,
    Document,
    assert_hardened,
    load,
)
from tests.support import Server, make_bundle, running_server

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
