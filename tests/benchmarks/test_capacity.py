"""The capacity formula, and its results in deploy/SCALING.md."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from app.api.settings import Settings
from benchmarks.capacity import Figures, Plan, cameras, measure_model_mb, measured, plan, report
from tests.support import ROOT

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process only

DEPLOY = ROOT / "deploy"
FIGURES = Figures(requests_per_core=1000, worker_mb=300, model_mb=10, utilisation=0.5, spare_pods=1)


@pytest.mark.parametrize(
    ("requests_per_s", "models", "expected"),
    [(1, 1, Plan(2, 0.6)), (500, 1, Plan(2, 0.6)), (501, 1, Plan(3, 0.9)), (50_000, 11, Plan(101, 40.4))],
)
def test_plan(requests_per_s: float, models: int, expected: Plan) -> None:
    planned = plan(requests_per_s, models, FIGURES)
    assert planned.pods == expected.pods
    assert planned.memory_gb == pytest.approx(expected.memory_gb)


@pytest.mark.parametrize("figures", [(0, 300, 10, 0.5), (1000, 300, 10, 0), (1000, 300, 10, 1.1)])
def test_figures_without_capacity_are_rejected(figures: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="no capacity"):
        Figures(*figures)


def test_scaling_page_has_the_current_figures() -> None:
    """If this fails after a benchmark, copy the output of ``python -m benchmarks.capacity`` to deploy/SCALING.md."""
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    figures, page = measured(results), (DEPLOY / "SCALING.md").read_text()
    assert report(figures) in page
    assert cameras(results, figures) in page


def test_cameras_are_planned_for_by_the_rate_of_their_images() -> None:
    lines = [
        {"measure": "1 × 1 JPEG: requests/s ÷ a naive app", "ours": 20.0},
        {"measure": "1 × 1 JPEG: ms, Pillow ÷ ours", "ours": 1.0},
    ]
    assert cameras({"images": {"lines": lines}}, FIGURES).splitlines()[2:] == [
        "| 1 × 1 JPEG | 20 | 10 | 2 | 0.6 GB |",
        "| 1 × 1 JPEG | 20 | 100 | 11 | 3.3 GB |",
        "| 1 × 1 JPEG | 20 | 1,000 | 101 | 30.3 GB |",
    ]


def test_kubernetes_resources_match_the_figures() -> None:
    base = DEPLOY / "kubernetes" / "base"
    figures = measured(json.loads((ROOT / "benchmarks" / "results.json").read_text()))
    (cores,) = yaml.safe_load((base / "autoscaler.yaml").read_text())["spec"]["metrics"]
    assert cores["resource"]["target"]["averageUtilization"] == pytest.approx(100 * figures.utilisation)
    (container,) = yaml.safe_load((base / "deployment.yaml").read_text())["spec"]["template"]["spec"]["containers"]
    request, limit = (
        float(container["resources"][kind]["memory"].removesuffix("Mi")) * 2**20 / 1e6
        for kind in ("requests", "limits")
    )
    assert figures.worker_mb < request < 2 * figures.worker_mb + 100
    decoding, bodies = 2 * 400, 16 * Settings.model_fields["max_body_bytes"].default / 1e6  # MB, see deploy/SCALING.md
    assert figures.worker_mb + decoding + bodies < limit


@pytest.mark.skipif(shutil.which("taskset") is None or not Path("/proc/self/smaps").exists(), reason="Linux only")
def test_measured_memory_of_a_further_model_is_plausible() -> None:
    """The file of the model has 3.4 MB."""
    assert 3 < measure_model_mb(3) < 300
