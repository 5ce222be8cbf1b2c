"""The pages of deploy/ match the files that they describe."""

import json
import re

import pytest
import yaml

from tests.documents import DOCUMENTS, Document
from tests.support import ROOT

DEPLOY = ROOT / "deploy"
MONITORING = Document("deploy/README.md")
PAGES = [document for document in DOCUMENTS if document.name.startswith("deploy/")]


def test_every_alert_is_described() -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert re.findall(r"^\| `(Anomaly\w+)` \|", MONITORING.text, re.MULTILINE) == alerts


def test_every_panel_that_is_named_is_on_the_dashboard() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    titles = {panel["title"] for panel in dashboard["panels"]}
    labels = {variable.get("label") for variable in dashboard["templating"]["list"]}
    section = MONITORING.text.split("## Alerts")[0]
    named = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", section)) - {"Dashboards → New → Import"}
    assert named
    assert named <= titles | labels


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_folder_in_a_first_column_exists(page: Document) -> None:
    for name in re.findall(r"^\| (?:\[)?`([\w./-]+(?:/|\.\w+))`", page.text, re.MULTILINE):
        assert (page.path.parent / name).exists(), name
