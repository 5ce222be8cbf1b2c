"""``python -m app.client watch``: every image is scored once and archived, whatever happens."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.client.watching import command
from app.client.watching.archive import Archive
from app.client.watching.journal import Entry, Journal, UnusableJournal
from tests.client.conftest import BusyServer, Digits, Failure
from tests.client.watching import killed
from tests.client.watching.conftest import Watch, check, files, journal, running, wait_until
from tests.support import ROOT, WITHOUT_COVERAGE, Server


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_images_are_recorded_and_moved_by_day_and_verdict(
    watch: Watch, incoming: Path, archive: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    (incoming / "broken.png").write_bytes(b"no image")
    (incoming / "notes.txt").write_bytes(b"no image either")
    images = {name: content for name, content in contents(incoming).items() if name != "notes.txt"}
    assert watch("--lines", "--operator", "Ada") == 0
    lines = {line["file"]: line for line in check(archive, images)}
    assert files(incoming) == ["notes.txt"]
    five, zero, broken = lines["five.png"], lines["line 2/zero.png"], lines["broken.png"]
    assert zero["archived"] == f"{zero['time'][:10]}/anomaly/line 2/zero.png"
    assert [each["verdict"] for each in (five, zero, broken)] == ["normal", "anomaly", "rejected"]
    answer = server.client.post("/score?include=", files={"file": images["line 2/zero.png"]}).json()
    expected = {**answer["results"][0], "threshold": answer["threshold"], "version": answer["model"]["version"]}
    same = ("score", "p_value", "mse", "threshold", "verdict", "version")
    assert [zero[name] for name in same] == [expected[name] for name in same]
    assert (zero["false_alarm_rate"], zero["model"], zero["operator"]) == (0.05, "digits-5", "Ada")
    assert "not a readable image" in broken["error"]
    out = capfd.readouterr().out
    assert out.count("\n") == 3
    assert "anomaly" in next(line for line in out.splitlines() if "zero.png" in line)


@pytest.mark.parametrize("options", [("--copy",), ()], ids=["copy", "leave"])
def test_images_that_stay_are_scored_once(
    watch: Watch, url: str, incoming: Path, archive: Path, options: tuple[str, ...], digit_files: Digits
) -> None:
    def run() -> list[str]:
        if options:
            assert watch(*options) == 0
        else:
            words = [incoming, "--journal", archive / "verdicts.jsonl", "--url", url, "--settle", 0.05, "--once"]
            assert command.main([*map(str, words)]) == 0
        return [line["file"] for line in journal(archive)]

    before = contents(incoming)
    assert sorted(run()) == ["five.png", "line 2/zero.png"]
    os.utime(incoming / "five.png")  # touched, not changed
    assert len(run()) == 2
    (incoming / "five.png").write_bytes(digit_files[3][0])
    assert run()[2:] == ["five.png"]
    assert files(incoming) == [*before]
    if options:
        assert len(files(archive)) == 1 + 3  # both versions of five.png are kept


@pytest.mark.parametrize("step", killed.STEPS)
def test_run_that_was_killed_at_any_step_is_continued(
    watch: Watch, url: str, incoming: Path, archive: Path, step: str
) -> None:
    images = contents(incoming)
    words = [incoming, "--archive", archive, "--url", url, "--settle", "0.05", "--once"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.client.watching.killed", step, *map(str, words)],
        cwd=ROOT, env=WITHOUT_COVERAGE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert watch() == 0
    check(archive, images)
    assert files(incoming) == []


def test_file_that_is_open_for_writing_is_not_taken(
    url: str, incoming: Path, archive: Path, digit_files: Digits
) -> None:
    data = digit_files[5][1]
    with (incoming / "slow.png").open("wb") as file:
        file.write(data[:100])
        file.flush()
        with running(incoming, "--archive", archive, "--url", url, "--settle", 0.05, "--once"):
            wait_until(lambda: len(journal(archive)) == 2)
            time.sleep(0.6)  # more than ten times --settle
            assert len(journal(archive)) == 2
            file.write(data[100:])
            file.close()
    assert {line["file"]: line["verdict"] for line in journal(archive)}["slow.png"] == "normal"


def test_cut_file_is_not_rejected_while_it_may_grow(
    url: str, incoming: Path, archive: Path, digit_files: Digits
) -> None:
    """A writer on another machine is invisible: here one that closes the file in between."""
    data, slow = digit_files[5][1], incoming / "slow.png"
    slow.write_bytes(data[:100])
    with running(incoming, "--archive", archive, "--url", url, "--settle", 0.3, "--once"):
        wait_until(lambda: len(journal(archive)) == 2)
        with slow.open("ab") as file:
            file.write(data[100:])
    assert {line["file"]: line["verdict"] for line in journal(archive)}["slow.png"] == "normal"


def test_full_disk_loses_nothing(url: str, incoming: Path, archive: Path) -> None:
    images = contents(incoming)
    archive.mkdir()
    with running(incoming, "--archive", archive, "--url", url, "--settle", 0.5, "--once") as watcher:
        resource.prlimit(watcher.pid, resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))  # room for a part of a line
        assert watcher.stderr is not None
        assert watcher.stderr.readline() == f"cannot write {archive / 'verdicts.jsonl'}: File too large\n"
        assert files(incoming) == [*images]
        assert journal(archive) == []
        resource.prlimit(watcher.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    check(archive, images)


def test_stopping_while_the_archive_is_blocked_doubles_nothing(
    watch: Watch, url: str, incoming: Path, archive: Path
) -> None:
    """The next run finishes the last line only, so no other line may follow it."""
    images, today = contents(incoming), datetime.now().astimezone()
    blocks = [archive / f"{today + timedelta(days):%Y-%m-%d}" for days in (0, 1)]
    archive.mkdir()
    for block in blocks:
        block.touch()  # where a folder has to be
    with running(incoming, "--archive", archive, "--url", url, "--settle", 0.05) as watcher:
        assert watcher.stderr is not None
        assert "cannot archive" in watcher.stderr.readline()
        watcher.send_signal(signal.SIGTERM)
    assert len(journal(archive)) == 1
    for block in blocks:
        block.unlink()
    assert watch() == 0
    check(archive, images)


def test_service_that_is_away_is_waited_for(
    watch: Watch, busy: BusyServer, incoming: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.client.watching.watcher._FIRST_PAUSE_S", 0.01)
    images = contents(incoming)
    busy.failures = [Failure(500)] * 3 + [Failure(404)]
    assert watch("--url", busy.url) == 0
    check(archive, images)
    assert len(busy.times) == 4 + 2


def test_same_name_comes_again(watch: Watch, incoming: Path, archive: Path, digit_files: Digits) -> None:
    """A camera that starts its count again overwrites nothing in the archive."""
    for data in (digit_files[5][0], digit_files[5][1], digit_files[5][0], digit_files[5][0]):
        (incoming / "five.png").write_bytes(data)
        assert watch() == 0
    lines = [line for line in journal(archive) if line["file"] == "five.png"]
    assert len({line["archived"] for line in lines}) == len({line["id"] for line in lines}) == 4
    assert [(archive / line["archived"]).read_bytes() for line in lines] == [
        digit_files[5][number] for number in (0, 1, 0, 0)
    ]


@pytest.mark.parametrize("options", [(), ("--poll", "0.1")], ids=["notified", "polling"])
def test_watcher_sees_what_comes_and_ends_with_a_signal(
    url: str, incoming: Path, digit_files: Digits, options: tuple[str, ...]
) -> None:
    if not options:
        pytest.importorskip("watchfiles", reason="the extra `watch` is not installed")
    archive = incoming / "archive"  # in the folder itself, and not searched
    with running(incoming, "--archive", archive, "--url", url, "--settle", 0.1, *options) as watcher:
        wait_until(lambda: len(journal(archive)) == 2)
        for number, data in enumerate(digit_files[5][:5]):
            (incoming / f".{number}.png.tmp").write_bytes(data)
            (incoming / f".{number}.png.tmp").rename(incoming / f"{number}.png")
        wait_until(lambda: len(journal(archive)) == 7)  # the signal may come before the last one is moved
        watcher.send_signal(signal.SIGTERM)
        out, err = watcher.communicate(timeout=60)
    assert err == ""
    assert out == "7 images: 6 normal, 1 anomalous; 0 waiting\n"  # not on a terminal: a line per minute, and at the end
    assert [name for name in files(incoming) if not name.startswith("archive")] == []


def test_second_watcher_and_foreign_journals_are_refused(tmp_path: Path, watch: Watch, archive: Path) -> None:
    archive.mkdir()
    with Journal(archive / "verdicts.jsonl"):
        assert watch() == 2
        with pytest.raises(UnusableJournal, match="another watcher"):
            Journal(archive / "verdicts.jsonl")
    (archive / "verdicts.jsonl").write_text('{"path": "a.png"}\n')
    assert watch() == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--archive", "x"], "nowhere is not a folder"),
        (["."], "--journal is needed without --archive"),
        ([".", "--journal", "x", "--copy"], "--copy needs --archive"),
        ([".", "--archive", "x", "--settle", "0"], "not a positive number"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(words)
    assert message in capsys.readouterr().err


def test_unknown_model_ends_the_start(watch: Watch, capfd: pytest.CaptureFixture[str]) -> None:
    assert watch("--model", "nothing") == 2
    assert "unknown model nothing" in capfd.readouterr().err


def test_entry_survives_names_that_are_not_utf8(tmp_path: Path) -> None:
    entry = Entry("1", "t", os.fsdecode(b"\xff.png"), 1, 2, "h", "rejected", None, None)
    with Journal(tmp_path / "j") as lines:
        lines.append(entry)
        assert [*lines.entries()] == [entry]
    assert json.loads((tmp_path / "j").read_bytes())["verdict"] == "rejected"


def test_place_in_the_archive_is_free(tmp_path: Path) -> None:
    archive = Archive(tmp_path, keep=False)
    places = []
    for _ in range(4):
        places.append(archive.place("a/b.png", "2026-01-31", "normal", "0123456789abcdef"))
        (tmp_path / places[-1]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / places[-1]).touch()
    names = ["b", "b-0123456789ab", "b-0123456789ab-2", "b-0123456789ab-3"]
    assert places == [f"2026-01-31/normal/a/{name}.png" for name in names]
