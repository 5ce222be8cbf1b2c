"""The queries of the dashboard and the alerts use existing metrics, and a real Prometheus evaluates them."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.inference.bundles.store import ModelStore
from tests.support import ROOT, Server, encode, free_port, gradient, make_bundle, running_server

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process only

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
PNG = encode(gradient())

DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {f"{panel['title']}: {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


def send_traffic(server: Server) -> None:
    """Requests with several statuses, with readable and unreadable images."""
    for _ in range(5):
        files = [("file", PNG), ("file", b"nothing")]
        assert server.client.post("/score", files=files).status_code == 200
    assert server.client.post("/score", files={"file": b"nothing"}).status_code == 422
    assert server.client.get("/nothing").status_code == 404


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two models; it refuses the newest version of one of them."""
    directory = tmp_path_factory.mktemp("watched")
    store = ModelStore(directory / "store")
    store.publish(*make_bundle("m"))
    store.publish(*make_bundle("other"))
    with running_server(directory / "store", directory / "log", measure_coverage=False, model="m") as server:
        assert server.client.post("/score?model=other", files={"file": PNG}).status_code == 200
        shutil.copytree(store.root / "other" / store.current("other"), store.root / "other" / "broken")
        (store.root / "other" / "CURRENT").write_text("broken")
        deadline = time.monotonic() + 60
        while not server.client.get("/health").json()["refused"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        send_traffic(server)
        yield server


def named_metrics(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:anomaly|process)_[a-z_]+\b", re.sub(r"\{[^}]*\}", "", expression)))


def rule_expressions() -> str:
    """The queries of the rules, as text without names, labels, descriptions and comments."""
    return re.sub(r"^ *(- alert|summary|description|labels|#).*$", "", RULES.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("where", ["dashboard", "rules"])
def test_metrics_exist(watched: Server, where: str) -> None:
    scrape = watched.client.get("/metrics").text
    families = list(text_string_to_metric_families(scrape))
    existing = {sample.name for family in families for sample in family.samples} | {family.name for family in families}
    named = named_metrics(" ".join(QUERIES.values()) if where == "dashboard" else rule_expressions())
    assert len(named) > 5
    assert named <= existing


def test_dashboard_can_be_imported() -> None:
    """Checks what Grafana requires of a file, and that every panel uses the selected data source."""
    assert DASHBOARD["schemaVersion"] >= 39
    assert "id" not in DASHBOARD
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    for query in QUERIES.values():
        assert set(re.findall(r"\$([a-z][a-z_]*)", query)) <= variables


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells


def promtool(*arguments: str, given: str | None = None) -> None:
    run = subprocess.run(
        ["promtool", *arguments], cwd=RULES.parent, input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


@needs_promtool
class TestPromtool:
    def test_rules_are_valid(self) -> None:
        promtool("check", "rules", RULES.name)

    def test_rules_pass_their_unit_tests(self) -> None:
        promtool("test", "rules", "alerts_test.yml")

    def test_every_rule_has_a_test_that_fires_and_one_that_does_not(self) -> None:
        tests = (RULES.parent / "alerts_test.yml").read_text()
        for alert in re.findall(r"- alert: (\w+)", RULES.read_text()):
            assert re.search(rf"alertname: {alert}, exp_alerts: \[\]", tests), f"no test in which {alert} does not fire"
            assert re.search(rf"alertname: {alert}\n +exp_alerts:\n", tests), f"no test in which {alert} fires"

    def test_sample_configuration_is_valid(self) -> None:
        promtool("check", "config", "prometheus.yml")

    def test_metrics_follow_the_conventions(self, watched: Server) -> None:
        promtool("check", "metrics", given=watched.client.get("/metrics").text)


@pytest.fixture(scope="module")
def prometheus(watched: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus that has scraped the service for some seconds, under load."""
    directory = tmp_path_factory.mktemp("prometheus")
    configuration = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "anomaly", "static_configs": [{"targets": [f"127.0.0.1:{watched.port}"]}]}],
    }
    (directory / "prometheus.yml").write_text(json.dumps(configuration))  # YAML is a superset of JSON
    port = free_port()
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
            ],
            stdout=log, stderr=log, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=20, trust_env=False) as client:
            wait_until(lambda: bool(evaluate(client, 'up{job="anomaly"} == 1')), directory / "log")
            for _ in range(3):
                send_traffic(watched)
                time.sleep(0.7)
            wait_until(lambda: bool(evaluate(client, "increase(anomaly_p_value_count[1m]) > 0")), directory / "log")
            yield client
    finally:
        process.terminate()
        process.wait(20)


def evaluate(client: httpx.Client, query: str) -> list[Any]:
    response = client.get("/query", params={"query": query})
    response.raise_for_status()  # while Prometheus starts, the status is 503
    answer = response.json()
    assert answer["status"] == "success", answer
    return list(answer["data"]["result"])


def wait_until(condition: Any, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if condition():
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@needs_prometheus
class TestPrometheus:
    @pytest.mark.parametrize("panel", QUERIES)
    def test_dashboard_queries_return_data(self, prometheus: httpx.Client, panel: str) -> None:
        query = QUERIES[panel]
        values = {"job": ".*", "model": ".*", "false_alarm_rate": "0.01", "queue_size": "256"}
        for name, value in {**values, "__rate_interval": "1m", "__range": "1m"}.items():
            query = query.replace(f"${name}", value)
        assert evaluate(prometheus, query), query

    def test_dashboard_variables_have_values(self, prometheus: httpx.Client) -> None:
        lists = [variable for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
        for variable in lists:
            series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            found = prometheus.get(f"/label/{label}/values", params={"match[]": series.replace("$job", ".*")}).json()
            assert found["data"], variable["name"]

    def test_rules_are_evaluated(self, prometheus: httpx.Client) -> None:
        def rules() -> list[dict[str, Any]]:
            groups = prometheus.get("/rules").json()["data"]["groups"]
            return [rule for group in groups for rule in group["rules"]]

        deadline = time.monotonic() + 60
        while any(rule["health"] == "unknown" for rule in rules()):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert len(rules()) == RULES.read_text().count("- alert:")
        assert {rule["health"] for rule in rules()} == {"ok"}
        states = {rule["name"]: rule["state"] for rule in rules()}
        assert states.pop("AnomalyVersionRefused") == "pending"
        assert states.pop("AnomalyShareHigh") in {
            "inactive",
            "pending",
        }  # the network is untrained, so its p-values are arbitrary
        assert set(states.values()) == {"inactive"}
