"""``watch http://…``: a camera that gives a picture for each request, and every way in which it may fail."""

import asyncio
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app.client.watching import command
from app.client.watching.sources import snapshot
from app.client.watching.sources.address import Address
from app.client.watching.sources.camera import CameraAway, Outage
from app.client.watching.sources.snapshot import SnapshotCamera
from tests.client.conftest import BusyServer, Failure
from tests.client.watching.cameras import LOGIN, PASSWORD, USER, CameraServer, camera, jpeg
from tests.client.watching.conftest import files, journal, running, wait_until
from tests.support import ROOT, WITHOUT_COVERAGE, free_port

Once = Callable[..., int]


@pytest.fixture
def eye() -> Iterator[CameraServer]:
    with camera() as running_camera:
        yield running_camera


@pytest.fixture
def once(url: str, archive: Path, monkeypatch: pytest.MonkeyPatch) -> Once:
    """Takes one picture, and ends."""
    monkeypatch.setattr("app.client.watching.sources.camera._FIRST_PAUSE_S", 0.01)

    def run(address: str, *options: object) -> int:
        words = [address, "--archive", archive, "--url", url, "--once", "--every", "10ms", *options]
        return command.main([*map(str, words)])

    return run


def check(archive: Path, pictures: list[bytes]) -> list[dict[str, Any]]:
    """These pictures and no others have their line and are archived, as they came from the camera."""
    lines = journal(archive)
    assert [(archive / line["archived"]).read_bytes() for line in lines] == pictures
    assert files(archive) == sorted(["verdicts.jsonl", *(line["archived"] for line in lines)])
    return lines


def test_picture_is_scored_and_archived_as_it_came(eye: CameraServer, once: Once, archive: Path) -> None:
    before = datetime.now().astimezone().isoformat(timespec="milliseconds")
    assert once(eye.url(), "--name", "line-2") == 0
    (line,) = check(archive, eye.pictures)
    assert line["camera"] == "line-2"
    assert before <= line["captured"] <= line["time"]
    assert re.fullmatch(r"line-2-\d{8}T\d{6}\.\d{3}Z\.jpg", line["file"])
    assert line["archived"] == f"{line['time'][:10]}/{line['verdict']}/{line['file']}"
    assert (line["model"], line["verdict"]) == ("digits-5", "anomaly")
    assert line["score"] > line["threshold"]


def test_camera_that_fails_in_every_way_is_told_once_and_waited_for(
    eye: CameraServer, once: Once, archive: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_MAX_BYTES", 10_000)
    monkeypatch.setattr("app.client.watching.sources.camera._LONGEST_PAUSE_S", 0.02)
    picture = jpeg(7)
    eye.answers = [500, 500, None, b"<html>Camera</html>", b"", picture + bytes(10_000), "/loop"]
    eye.answers += ["/loop"] * 5 + [404, 401, "gopher://x", "http://[", picture]
    assert once(eye.url(), "--camera-timeout", 1) == 0
    check(archive, [picture])
    told = capfd.readouterr().err.splitlines()
    away = [line for line in told if "is away" in line]
    reasons = [line.removeprefix("camera 127.0.0.1 is away: ").removesuffix("; trying again") for line in away]
    assert reasons[:7] == [
        "status 500",
        "no whole picture in 1 s",
        "it answers with something that is no image",
        "it answers with nothing",
        "the answer has more than 0 MiB",
        "it redirects more than 5 times",
        "status 404",
    ]
    assert reasons[7] == "status 401, it refuses user and password"
    assert all(reason.startswith("no answer (") for reason in reasons[8:])
    assert told[-1] == "camera 127.0.0.1 is back"


@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_camera_that_asks_for_a_login_gets_it(eye: CameraServer, once: Once, archive: Path, scheme: str) -> None:
    eye.scheme = scheme
    assert once(eye.url(login=LOGIN)) == 0
    check(archive, eye.pictures)
    assert eye.logins[0] is None  # nothing is sent before it is asked for


def test_redirect_keeps_the_login_on_this_host_only(eye: CameraServer, once: Once, archive: Path) -> None:
    with camera() as other:
        eye.scheme = "basic"
        eye.answers = ["/elsewhere", f"http://localhost:{other.server_port}/picture"]
        assert once(eye.url(login=LOGIN)) == 0
        check(archive, other.pictures)
    assert other.logins == [None]
    assert [login is not None for login in eye.logins] == [False, True, True]


def test_same_picture_is_not_scored_twice(eye: CameraServer) -> None:
    eye.answers = [jpeg(1), jpeg(1), jpeg(1), jpeg(2), *[jpeg(2)] * 100]

    async def take() -> list[bytes]:
        frozen = SnapshotCamera(Address(eye.url()), 1, Outage("a", lambda _: None))
        pictures = [(await frozen.picture(0)).content, (await frozen.picture(0)).content]
        with pytest.raises(CameraAway, match="the same picture for 1 s"):
            await frozen.picture(0)
        asked = len(eye.logins)
        with pytest.raises(CameraAway, match="the same picture"):  # at once, without a request
            await frozen.picture(0)
        assert len(eye.logins) == asked
        await frozen.aclose()
        return pictures

    assert asyncio.run(take()) == [jpeg(1), jpeg(2)]


def test_camera_that_is_away_at_the_start_and_restarts(url: str, archive: Path) -> None:
    port = free_port()
    words = [f"http://127.0.0.1:{port}/picture", "--name", "c", "--archive", archive, "--url", url, "--every", "20ms"]
    with running(*words) as watcher:
        assert watcher.stderr is not None
        assert watcher.stderr.readline() == "camera c is away: no answer (ConnectError); trying again\n"
        with camera(port):
            assert watcher.stderr.readline() == "camera c is back\n"
            wait_until(lambda: len(journal(archive)) >= 2)
        assert watcher.stderr.readline().startswith("camera c is away: no answer (")
        with camera(port):
            before = len(journal(archive))
            wait_until(lambda: len(journal(archive)) > before)
            watcher.send_signal(signal.SIGTERM)
            out, _ = watcher.communicate(timeout=60)
    assert re.fullmatch(r"[\d,]+ images: .* 0 waiting, [\d,]+ missed\n", out)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_password_is_in_no_output_and_no_list_of_processes(url: str, eye: CameraServer, archive: Path) -> None:
    eye.scheme = "basic"
    eye.answers = [500]
    address = eye.url("/picture?token=hidden", login=LOGIN)
    with running(address, "--archive", archive, "--url", url, "--every", "20ms", "--lines") as watcher:
        wait_until(lambda: len(journal(archive)) > 1)
        listed = Path(f"/proc/{watcher.pid}/cmdline").read_text()
        watcher.send_signal(signal.SIGTERM)
        out, err = watcher.communicate(timeout=60)
    assert "app.client" in listed
    written = "".join((archive / name).read_text(errors="replace") + name for name in files(archive))
    assert "is away: status 500" in err
    for secret in (USER, PASSWORD, "s3cret", "hidden", "token"):
        assert secret not in listed + out + err + written


@pytest.mark.parametrize("step", ["answered", "line", "moved"])
def test_picture_of_a_run_that_was_killed_is_finished_by_the_next(
    eye: CameraServer, once: Once, url: str, archive: Path, step: str
) -> None:
    words = [eye.url(), "--archive", archive, "--url", url, "--once"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.client.watching.killed", step, *map(str, words)],
        cwd=ROOT, env=WITHOUT_COVERAGE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == -signal.SIGKILL, run.stderr
    (archive / ".127.0.0.1" / "cut.png.part").write_bytes(b"cut")
    assert once(eye.url()) == 0
    check(archive, eye.pictures)


def test_service_that_is_away_makes_no_queue_of_pictures(
    eye: CameraServer, once: Once, busy: BusyServer, archive: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("app.client.watching.watcher._FIRST_PAUSE_S", 0.1)
    busy.failures = [Failure(500)] * 3
    assert once(eye.url(), "--url", busy.url) == 0
    check(archive, eye.pictures)
    assert len(eye.pictures) == 1


def test_full_disk_takes_no_pictures_and_goes_on(eye: CameraServer, url: str, archive: Path) -> None:
    archive.mkdir()
    with running(eye.url(), "--archive", archive, "--url", url, "--every", "20ms") as watcher:
        wait_until(lambda: journal(archive))
        resource.prlimit(watcher.pid, resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
        assert watcher.stderr is not None
        assert re.match("cannot write .*: File too large", watcher.stderr.readline())
        resource.prlimit(watcher.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        before = len(journal(archive))
        wait_until(lambda: len(journal(archive)) > before)
        watcher.send_signal(signal.SIGTERM)
    for line in journal(archive)[:-1]:
        assert (archive / line["archived"]).read_bytes() in eye.pictures


def test_ticks_that_are_missed_are_counted(
    eye: CameraServer, once: Once, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.client.watching.sources.camera._FIRST_PAUSE_S", 0.1)
    eye.answers = [500]
    started = time.monotonic()
    assert once(eye.url(), "--lines") == 0
    ticks = (time.monotonic() - started) / 0.01
    (missed,) = re.findall(r"(\d+) missed before", capfd.readouterr().out)
    assert 2 <= int(missed) <= ticks


def test_pauses_grow_while_a_camera_comes_for_moments_only(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    now = 100.0
    monkeypatch.setattr("app.client.watching.sources.camera.time.monotonic", lambda: now)
    outage = Outage("c", told.append)
    assert [outage.failed("gone") for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    outage.over()
    now += 1
    assert outage.failed("gone") == 10
    outage.over()
    now += 60
    assert [outage.failed("gone"), outage.failed("other")] == [1, 2]
    away, back = "camera c is away: gone; trying again", "camera c is back"
    assert told == [away, back, away, back, away, away.replace("gone", "other")]
