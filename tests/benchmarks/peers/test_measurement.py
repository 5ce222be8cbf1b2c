import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.peers import __main__ as command
from benchmarks.peers.environments import pinned_version, run_command
from benchmarks.peers.measurement import Bench, Figures
from benchmarks.peers.servers import PEERS
from benchmarks.peers.summary import summary, table
from benchmarks.peers.workloads import WORKLOADS, Workload

DIGITS = WORKLOADS["digits"]

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process only


def figures(speed: float, errors: float = 0) -> Figures:
    return Figures(speed, speed / 2, 10, 5, 1, 3, 300, errors)


def test_summary_has_the_median_of_the_ratios() -> None:
    rounds = [(figures(100), figures(100)), (figures(900), figures(300)), (figures(400), figures(200, errors=2))]
    row = summary(rounds)
    assert row["ours_to_peer"]["requests_per_s"] == 2
    assert row["ours"]["requests_per_s"] == 400
    assert row["peer"]["requests_per_s"] == 200
    assert row["errors"] == {"ours": 0, "peer": 2}


def test_results_of_other_benchmarks_images_and_peers_are_kept(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    old = {DIGITS.name: {"old": {"version": "1"}, "new": {"version": "0"}}, "other": {"new": {"version": "0"}}}
    output.write_text(json.dumps({"serving": {"a": 1}, "peers": old}))
    command._write_results(output, DIGITS, {"new": {"version": "2", "failed": "no"}}, 4)
    kept = json.loads(output.read_text())
    assert kept["serving"] == {"a": 1}
    assert kept["peers"]["other"] == old["other"]
    assert kept["peers"][DIGITS.name]["old"] == {"version": "1"}
    assert kept["peers"][DIGITS.name]["new"]["version"] == "2"


def test_table_shows_the_reason_of_a_failure() -> None:
    rows = {
        "a": {"version": "1", "failed": "needs Java"},
        "b": {"version": "2", **summary([(figures(300), figures(100))])},
    }
    lines = table(DIGITS, rows).splitlines()
    assert "28 × 28 PNG" in lines[0]
    assert "a 1" in lines[2]
    assert "needs Java" in lines[2]
    assert "3.00 × (300 ÷ 100)" in lines[3]


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=list(WORKLOADS))
def test_images_of_a_workload_are_different(workload: Workload) -> None:
    assert len(set(workload.images)) == len(workload.images) > 1


def test_every_peer_has_a_pinned_version() -> None:
    assert all(map(pinned_version, PEERS))


@pytest.mark.parametrize("option", ["--peers", "--images"])
def test_unknown_choice_is_an_error_that_lists_the_known_ones(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([option, "none"])
    assert "choose from" in capsys.readouterr().err


def test_missing_program_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    torchserve = replace(PEERS["torchserve"], needs=("no-such-program", "needs it; install it"))
    with pytest.raises(BenchmarkError, match="needs it; install it"):
        Bench.of_peer(torchserve, tmp_path, tmp_path)


def test_failed_command_is_an_error_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"failed: no such version$"):
        run_command([sys.executable, "-c", "raise SystemExit('no such\\nversion')"], tmp_path)
    with pytest.raises(BenchmarkError, match="no-such-program cannot be started"):
        run_command(["no-such-program"], tmp_path)


@pytest.mark.skipif(
    not (shutil.which("wrk") and shutil.which("taskset") and (os.cpu_count() or 1) > 1),
    reason="needs wrk, taskset and two cores",
)
@pytest.mark.parametrize("name", ["digits", "png"])
def test_measurement_of_the_service(name: str, tmp_path: Path) -> None:
    ours, workload = Bench.of_service(tmp_path), WORKLOADS[name]
    expected = ours.answers(workload.images)
    assert len({answer["results"][0]["mse"] for answer in expected}) == len(workload.images)
    measured = ours.measure(workload, expected, 1)
    assert measured.errors == 0
    assert measured.requests_per_s > 1
    expected[0]["results"][0]["mse"] *= 1.1
    with pytest.raises(BenchmarkError, match="mse"):
        ours.measure(workload, expected, 1)
