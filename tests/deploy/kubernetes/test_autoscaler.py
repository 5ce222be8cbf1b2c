"""The autoscaler's metric is one of the service."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.api.settings import Settings
from app.api.telemetry.metrics import Metrics
from app.inference.serving.warm_up import LARGE_BATCH
from tests.deploy.kubernetes.manifests import HERE, RESOURCES, load


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
