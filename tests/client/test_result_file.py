"""Result files: rows survive a round trip, and a file cut off at any byte is repaired."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from app.client.runs.result_file import ResultFile, UnusableResultFile
from app.client.runs.rows import COLUMNS, FORMATS, Row
from tests.full_disk import file_size_limit

SCORED = Row(
    path="a.png", status="scored", verdict="anomaly", score=0.25, threshold=0.1, p_value=1 / 3, mse=1e-9,
    false_alarm_rate=0.01, model="m", version="v1", warnings=("resized from 30×20 to 8×8", "looks; inverted"),
    boxes=((1, 2, 30, 40), (50, 60, 7, 8)), out_of_scope=True,
)  # fmt: skip
REJECTED = Row("b.png", "rejected", error='not a "readable" image, sorry')
ODD_NAMES = [
    "größe.png",
    'q"uote.png',
    "com,ma.png",
    "line\nbreak.png",
    "carriage\rreturn.png",
    "both\r\nbreaks.png",
    "\rfirst.png",
    "=1+1.png",
    "'=1+1.png",
    "''=1+1.png",
    "'quoted'.png",
    "-option.png",
    "@sum.png",
    "\ttab.png",
    "back\\slash.png",
    os.fsdecode(b"\xff\xfe.png"),
]


@pytest.fixture(params=list(FORMATS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(path: Path, name: str, *rows: Row) -> None:
    with ResultFile(path, FORMATS[name]) as results:
        results.write(rows)


def test_csv_is_readable_by_the_csv_module(tmp_path: Path) -> None:
    write(tmp_path / "r.csv", "csv", SCORED, REJECTED)
    with (tmp_path / "r.csv").open(newline="") as file:
        scored, rejected = csv.DictReader(file)
    assert tuple(scored) == COLUMNS
    assert (scored["path"], scored["verdict"], float(scored["p_value"])) == ("a.png", "anomaly", 1 / 3)
    assert scored["warnings"] == "resized from 30×20 to 8×8; looks; inverted"
    assert (scored["boxes"], rejected["boxes"]) == ("1 2 30 40; 50 60 7 8", "")
    assert (rejected["score"], rejected["error"]) == ("", REJECTED.error)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_csv_cell_is_a_formula_for_a_spreadsheet(tmp_path: Path, start: str) -> None:
    formula = f'{start}HYPERLINK("http://evil.example")'
    row = replace(SCORED, path=formula, score=-0.5, version=formula, warnings=(formula, formula))
    write(tmp_path / "r.csv", "csv", row, replace(REJECTED, error=formula))
    with (tmp_path / "r.csv").open(newline="") as file:
        scored, rejected = csv.DictReader(file)
    assert (scored["path"], scored["version"]) == (f"'{formula}", f"'{formula}")
    assert scored["warnings"] == f"'{formula}; {formula}"
    assert rejected["error"] == f"'{formula}"
    assert float(scored["score"]) == -0.5  # numbers stay numbers


def test_json_lines_are_readable_by_the_json_module(tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", "jsonl", SCORED, REJECTED)
    scored, rejected = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert tuple(scored) == COLUMNS
    assert (scored["p_value"], scored["warnings"]) == (1 / 3, list(SCORED.warnings or ()))
    assert (scored["boxes"], rejected["boxes"]) == ([[1, 2, 30, 40], [50, 60, 7, 8]], None)
    assert (rejected["score"], rejected["warnings"], rejected["error"]) == (None, None, REJECTED.error)


def test_rows_are_flushed_on_write(tmp_path: Path, name: str) -> None:
    with ResultFile(tmp_path / "results", FORMATS[name]) as results:
        for count in (1, 2, 3):
            results.write([SCORED])
            assert (tmp_path / "results").read_bytes().count(b"a.png") == count


def test_odd_file_names_round_trip(tmp_path: Path, name: str) -> None:
    results_path = tmp_path / "results"
    rows = [replace(SCORED, path=odd_name) for odd_name in ODD_NAMES]
    write(results_path, name, *rows, REJECTED)
    with ResultFile(results_path, FORMATS[name]) as results:
        previous = results.previous
    assert {Path(path).name: outcome for path, outcome in previous.outcomes.items()} == {
        **dict.fromkeys(ODD_NAMES, "anomaly"),
        "b.png": "rejected",
    }
    assert (previous.models, previous.sensitivities, previous.repaired) == ({"m"}, {"false-alarm rate 0.01"}, False)


def test_file_cut_off_at_any_byte_is_repaired(tmp_path: Path, name: str) -> None:
    """Complete rows are kept, an incomplete one is removed, and new rows follow."""
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
            kept = len(results.previous.outcomes)
            assert kept == sum(end <= cut for end in ends[1:])
            assert results.previous.repaired is (cut not in {0, *ends})
            results.write(rows[kept:])
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [b"my notes", b"my notes\n", b"path,status\n", b'{"a": 1}\n', b'{"path": 5}\n', b'{"path": "a"}\nx\n', b"\0" * 99],
)
def test_file_of_another_format_is_not_changed(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "results"
    path.write_bytes(content)
    with pytest.raises(UnusableResultFile, match="choose another --output"):
        ResultFile(path, FORMATS[name])
    assert path.read_bytes() == content


def test_damaged_row_is_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results"
    write(path, name, SCORED)
    before = path.read_bytes() + b"1,2,3\n"
    path.write_bytes(before)
    with pytest.raises(UnusableResultFile, match=r"record [23]"):
        ResultFile(path, FORMATS[name])
    assert path.read_bytes() == before


def test_file_is_locked_against_a_second_run(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results"
    with ResultFile(path, FORMATS[name]), pytest.raises(UnusableResultFile, match="another run"):
        ResultFile(path, FORMATS[name])
    write(path, name, SCORED)


def test_path_that_is_not_a_regular_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnusableResultFile, match="not a regular file"):
        ResultFile(tmp_path, FORMATS[name])


@pytest.mark.parametrize("room", [1, 20, 40])
def test_rows_that_do_not_fit_on_the_disk_are_removed_again(tmp_path: Path, name: str, room: int) -> None:
    path = tmp_path / "results"
    with ResultFile(path, FORMATS[name]) as results:
        results.write([SCORED])
        before = path.read_bytes()
        with file_size_limit(len(before) + room), pytest.raises(OSError, match="too large"):
            results.write([REJECTED])
        assert path.read_bytes() == before
        results.write([REJECTED])
    with ResultFile(path, FORMATS[name]) as results:
        assert (len(results.previous.outcomes), results.previous.repaired) == (2, False)
