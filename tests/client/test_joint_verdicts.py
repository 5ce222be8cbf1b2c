"""``python -m app.client --fdr``: the images of a run are decided together, those of earlier runs too."""

import json
from pathlib import Path

import pytest

from app.client import AnomalyClient
from app.client.runs.cli import main
from app.false_discovery import largest_flagged
from tests.client.conftest import Command, read
from tests.full_disk import file_size_limit

RATE = 0.1


def flagged(rows: list[dict[str, str]]) -> set[str]:
    """The paths that the procedure flags, from the p-values of the rows."""
    p_values = [float(row["p_value"]) for row in rows if row["p_value"]]
    largest = largest_flagged(p_values, RATE) or 0
    return {row["path"] for row in rows if row["p_value"] and float(row["p_value"]) <= largest}


@pytest.mark.parametrize("output", [None, "r.csv", "r.jsonl"])
def test_fdr_decides_all_images_of_a_run_together(
    command: Command, folder: Path, tmp_path: Path, output: str | None
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    path = tmp_path / (output or "")
    done = command(folder / "5", folder / "0", broken, "--fdr", RATE, *(["-o", path] if output else []))
    rows = read(path) if output else done.rows
    assert done.status == 3
    assert {row["path"] for row in rows if row["verdict"] == "anomaly"} == flagged(rows) != set()
    assert {str(row["fdr"]) for row in rows if row["status"] == "scored"} == {str(RATE)}
    assert {row["threshold"] for row in rows if row["status"] == "scored"} <= {"", None}
    assert f"{len(flagged(rows)):,} anomalies, 1 could not be scored" in done.err


def test_interrupted_fdr_run_has_no_verdicts_and_the_next_decides_all(
    command: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "r.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr("app.client.runs.joint_verdicts.JointVerdicts.decide", _killed)
        with pytest.raises(SystemError, match="killed"):
            command(folder / "5", "--fdr", RATE, "-o", output)
    assert {(row["status"], row["verdict"]) for row in read(output)} == {("scored", None)}
    other = command(folder / "5", "--false-alarm-rate", "0.05", "-o", output)
    assert "rows of false discovery rate 0.1, not of false-alarm rate 0.05" in other.err
    done = command(folder / "5", folder / "7", "--fdr", RATE, "-o", output)
    rows = read(output)
    assert (done.status, len(rows)) == (0, len({row["path"] for row in rows}))
    assert {row["path"] for row in rows if row["verdict"] == "anomaly"} == flagged(rows) != set()
    assert {row["verdict"] for row in rows} == {"anomaly", "normal"}
    assert "from earlier runs" in done.err
    content = output.read_bytes()
    assert command(folder / "5", folder / "7", "--fdr", RATE, "-o", output).status == 0
    assert output.read_bytes() == content


def _killed(_: object) -> dict[str, str]:
    raise SystemError("killed")


def test_full_disk_while_deciding_leaves_the_rows(command: Command, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.csv"
    command(folder / "5", "--fdr", RATE, "-o", output)
    content = output.read_bytes()
    with file_size_limit(len(content) - 10):
        done = command(folder / "5", "--fdr", RATE, "-o", output)
    assert (done.status, output.read_bytes()) == (2, content)
    assert [each.name for each in tmp_path.iterdir()] == ["r.csv"]


def test_fdr_that_can_flag_nothing_is_an_error(command: Command, few: Path) -> None:
    done = command(few, "--fdr", "0.0001")
    assert (done.status, "with --fdr 0.0001 no image can be flagged" in done.err) == (2, True)


@pytest.mark.parametrize("other", [["--threshold", "1"], ["--false-alarm-rate", "0.1"], ["--save-images", "x"]])
def test_fdr_excludes_other_rates(few: Path, capsys: pytest.CaptureFixture[str], other: list[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(few), "--fdr", "0.1", *other])
    assert "--fdr" in capsys.readouterr().err


def test_client_sends_fdr(service: AnomalyClient, few: Path) -> None:
    answer = service.score(sorted(few.rglob("*.png")), fdr=0.3)
    assert answer.false_alarm_rate is None
    assert [each.is_anomaly for each in answer.scored] == [each.score > answer.threshold for each in answer.scored]
    with pytest.raises(ValueError, match="exclude each other"):
        service.score(few / "b.png", fdr=0.3, threshold=1)


def test_rows_with_fdr_round_trip(command: Command, few: Path) -> None:
    rows = [json.loads(line) for line in command(few, "--fdr", "0.3", "--format", "jsonl").out.splitlines()]
    assert [row["fdr"] for row in rows] == [0.3] * 3
