"""Rows in a file: what goes in comes out, and a run that broke off at any byte is gone on with."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from app.client.results import ResultFile, UnusableResults
from app.client.rows import COLUMNS, FORMATS, Row

SCORED = Row(
    path="a.png", status="scored", verdict="anomaly", score=0.25, threshold=0.1, p_value=1 / 3, mse=1e-9,
    false_alarm_rate=0.01, model="m", version="v1", warnings=("resized from 30×20 to 8×8", "looks; inverted"),
)  # fmt: skip
REJECTED = Row("b.png", "rejected", error='not a "readable" image, sorry')
ODD_NAMES = [
    "größe.png",
    'q"uote.png',
    "com,ma.png",
    "line\nbreak.png",
    "back\\slash.png",
    os.fsdecode(b"\xff\xfe.png"),
]


@pytest.fixture(params=list(FORMATS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(path: Path, name: str, *rows: Row) -> None:
    with ResultFile(path, FORMATS[name]) as results:
        results.write(rows)


def test_csv_is_read_by_the_csv_module(tmp_path: Path) -> None:
    write(tmp_path / "r.csv", "csv", SCORED, REJECTED)
    with (tmp_path / "r.csv").open(newline="") as file:
        scored, rejected = csv.DictReader(file)
    assert tuple(scored) == COLUMNS
    assert (scored["path"], scored["verdict"], float(scored["p_value"])) == ("a.png", "anomaly", 1 / 3)
    assert scored["warnings"] == "resized from 30×20 to 8×8; looks; inverted"
    assert (rejected["score"], rejected["error"]) == ("", REJECTED.error)


def test_json_lines_are_read_by_the_json_module(tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", "jsonl", SCORED, REJECTED)
    scored, rejected = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert tuple(scored) == COLUMNS
    assert (scored["p_value"], scored["warnings"]) == (1 / 3, list(SCORED.warnings or ()))
    assert (rejected["score"], rejected["warnings"], rejected["error"]) == (None, None, REJECTED.error)


def test_rows_are_safe_as_soon_as_they_are_written(tmp_path: Path, name: str) -> None:
    with ResultFile(tmp_path / "results", FORMATS[name]) as results:
        for count in (1, 2, 3):
            results.write([SCORED])
            assert (tmp_path / "results").read_bytes().count(b"a.png") == count


def test_rows_are_found_again_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results"
    rows = [replace(SCORED, path=odd) for odd in ODD_NAMES]
    write(path, name, *rows, REJECTED)
    with ResultFile(path, FORMATS[name]) as results:
        earlier = results.earlier
    assert {Path(each).name: outcome for each, outcome in earlier.outcomes.items()} == {
        **dict.fromkeys(ODD_NAMES, "anomaly"),
        "b.png": "rejected",
    }
    assert (earlier.models, earlier.rates, earlier.repaired) == ({"m"}, {0.01}, False)


def test_a_file_cut_at_any_byte_is_repaired(tmp_path: Path, name: str) -> None:
    """Whole rows stay, the half-written one goes, and the next lands where it should."""
    path = tmp_path / "results"
    rows = [SCORED, replace(SCORED, path='li\nne, "2".png'), REJECTED]
    ends = []
    for count in range(len(rows) + 1):
        path.unlink(missing_ok=True)
        write(path, name, *rows[:count])
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with ResultFile(path, FORMATS[name]) as results:
            kept = len(results.earlier.outcomes)
            assert kept == sum(end <= cut for end in ends[1:])
            assert results.earlier.repaired is (cut not in {0, *ends})
            results.write(rows[kept:])
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [b"my notes", b"my notes\n", b"path,status\n", b'{"a": 1}\n', b'{"path": 5}\n', b'{"path": "a"}\nx\n', b"\0" * 99],
)
def test_a_foreign_file_is_left_alone(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "results"
    path.write_bytes(content)
    with pytest.raises(UnusableResults, match="choose another --output"):
        ResultFile(path, FORMATS[name])
    assert path.read_bytes() == content


def test_a_damaged_row_in_the_middle_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results"
    write(path, name, SCORED)
    before = path.read_bytes() + b"1,2,3\n"
    path.write_bytes(before)
    with pytest.raises(UnusableResults, match=r"record [23]"):
        ResultFile(path, FORMATS[name])
    assert path.read_bytes() == before


def test_two_runs_never_write_to_one_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results"
    with ResultFile(path, FORMATS[name]), pytest.raises(UnusableResults, match="another run"):
        ResultFile(path, FORMATS[name])
    write(path, name, SCORED)


def test_what_is_no_regular_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnusableResults, match="no regular file"):
        ResultFile(tmp_path, FORMATS[name])
