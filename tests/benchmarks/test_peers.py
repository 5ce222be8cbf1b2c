import argparse
import copy
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peer_servers, peers
from benchmarks.errors import BenchmarkError
from benchmarks.peers import Figures
from tests.support import encode, gradient

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process only

ANSWER: dict[str, Any] = {
    "model": {"name": "m", "version": "1"},
    "threshold": 0.1,
    "false_alarm_rate": 0.01,
    "results": [
        {
            "status": "scored",
            "filename": None,
            "mse": 0.02,
            "score": 0.03,
            "is_anomaly": False,
            "verdict": "normal",
            "p_value": 0.5,
            "warnings": [],
            "reconstruction": peer_servers._base64(encode(gradient())),
        }
    ],
}
ANSWER["results"][0]["reconstruction"] = "data:image/png;base64," + ANSWER["results"][0]["reconstruction"]


def changed(**fields: Any) -> dict[str, Any]:
    answer = copy.deepcopy(ANSWER)
    answer["results"][0].update(fields)
    return answer


def test_answer_that_differs_by_rounding_is_accepted() -> None:
    peers._require_same(changed(mse=0.02 * (1 + 5e-6), p_value=0.501), ANSWER)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mse", 0.02 * (1 + 2e-5)),
        ("score", 0.031),
        ("verdict", "anomaly"),
        ("warnings", ["resized"]),
        ("p_value", 0.51),
        (
            "reconstruction",
            "data:image/png;base64," + peer_servers._base64(encode(gradient().point(lambda level: level // 2))),
        ),
        ("reconstruction", None),
    ],
)
def test_different_answer_is_rejected(field: str, value: object) -> None:
    with pytest.raises(BenchmarkError, match=field):
        peers._require_same(changed(**{field: value}), ANSWER)


def test_different_threshold_is_rejected() -> None:
    with pytest.raises(BenchmarkError, match="threshold"):
        peers._require_same({**ANSWER, "threshold": 0.2}, ANSWER)


def figures(speed: float, errors: float = 0) -> Figures:
    return Figures(speed, speed / 2, 10, 5, 1, 3, 300, errors)


def test_summary_has_the_median_of_the_ratios() -> None:
    rounds = [(figures(100), figures(100)), (figures(900), figures(300)), (figures(400), figures(200, errors=2))]
    summary = peers._summary(rounds)
    assert summary["ours_to_peer"]["requests_per_s_at_32"] == 2
    assert summary["ours"]["requests_per_s_at_32"] == 400
    assert summary["peer"]["requests_per_s_at_32"] == 200
    assert summary["errors"] == {"ours": 0, "peer": 2}


def test_results_of_other_benchmarks_and_peers_are_kept(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    output.write_text(json.dumps({"serving": {"a": 1}, "peers": {"old": {"version": "1"}, "new": {"version": "0"}}}))
    peers._write_results(output, {"new": {"version": "2", "failed": "no"}}, argparse.Namespace(seconds=4))
    kept = json.loads(output.read_text())
    assert kept["serving"] == {"a": 1}
    assert kept["peers"]["old"] == {"version": "1"}
    assert kept["peers"]["new"]["version"] == "2"


def test_table_shows_the_reason_of_a_failure() -> None:
    rows = {
        "a": {"version": "1", "failed": "needs Java"},
        "b": {"version": "2", **peers._summary([(figures(300), figures(100))])},
    }
    lines = peers._table(rows).splitlines()
    assert "a 1" in lines[2]
    assert "needs Java" in lines[2]
    assert "3.00 × (300 ÷ 100)" in lines[3]


def test_images_are_different_and_every_peer_has_a_pinned_version() -> None:
    assert len(set(peers._images())) == peers._IMAGES
    assert all(peer_servers.pinned_version(name) for name in peer_servers.PEERS)


def test_missing_program_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    torchserve = replace(peer_servers.PEERS["torchserve"], needs=("no-such-program", "needs it; install it"))
    with pytest.raises(BenchmarkError, match="needs it; install it"):
        peer_servers.create_environment(torchserve, tmp_path)


def test_failed_command_is_an_error_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"failed: no such version$"):
        peer_servers.run_command([sys.executable, "-c", "raise SystemExit('no such\\nversion')"], tmp_path)
    with pytest.raises(BenchmarkError, match="no-such-program cannot be started"):
        peer_servers.run_command(["no-such-program"], tmp_path)


@pytest.mark.skipif(
    not (shutil.which("wrk") and shutil.which("taskset") and (os.cpu_count() or 1) > 1),
    reason="needs wrk, taskset and two cores",
)
def test_measurement_of_the_service(tmp_path: Path) -> None:
    ours = peers._Bench(peer_servers.OURS, Path(sys.executable).parent, peer_servers.ROOT, tmp_path, peers._images())
    expected = ours.answers()
    assert len({answer["results"][0]["mse"] for answer in expected}) == peers._IMAGES
    measured = ours.measure(expected, 1)
    assert measured.errors == 0
    assert measured.requests_per_s_at_32 > 10
    expected[0]["results"][0]["mse"] *= 1.01
    with pytest.raises(BenchmarkError, match="mse"):
        ours.measure(expected, 1)
