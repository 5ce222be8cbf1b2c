"""``watch --trigger``: each request takes a picture and is answered with its verdict."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.client.arguments import duration
from app.client.watching import command
from app.client.watching.options import CameraOptions, parse_options, secret_source
from app.client.watching.sources.address import URL_VARIABLE, Address
from app.client.watching.sources.trigger import Listening
from tests.client.conftest import BusyServer, Failure
from tests.client.watching.cameras import CameraServer, camera
from tests.client.watching.conftest import journal, running, wait_until
from tests.support import free_port


@pytest.fixture
def eye() -> Iterator[CameraServer]:
    with camera() as running_camera:
        yield running_camera


@contextmanager
def asking(port: int) -> Iterator[httpx.Client]:
    """A client, once the watcher listens."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:

        def listens() -> bool:
            try:
                return client.get("/").status_code == 404
            except httpx.ConnectError:
                return False

        wait_until(listens)
        yield client


def test_trigger_takes_a_picture_and_answers_with_its_line(url: str, eye: CameraServer, archive: Path) -> None:
    port = free_port()
    words = [eye.url(), "--name", "c", "--archive", archive, "--url", url, "--trigger", port]
    with running(*words) as watcher, asking(port) as client:
        assert eye.pictures == []  # none without a trigger
        answers = [client.get("/trigger"), client.post("/trigger", content=b"part 7")]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert [answer.json() for answer in answers] == journal(archive)
        assert [(archive / answer.json()["archived"]).read_bytes() for answer in answers] == eye.pictures
        for headers in ({"Origin": "https://example.com"}, {"Sec-Fetch-Site": "cross-site"}):
            assert client.get("/trigger", headers=headers).status_code == 403
        eye.answers = [500]
        refused = client.get("/trigger")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert refused.json()["detail"] == "the camera gives no picture: status 500"
        wait_until(lambda: client.get("/trigger").status_code == 200)  # after a pause
        assert len(journal(archive)) == len(eye.pictures) == 3
        watcher.send_signal(signal.SIGTERM)
        _, err = watcher.communicate(timeout=60)
    assert err == "camera c is away: status 500; trying again\ncamera c is back\n"


def test_trigger_does_not_wait_longer_than_the_timeout_for_a_verdict(
    eye: CameraServer, busy: BusyServer, archive: Path
) -> None:
    port = free_port()
    busy.failures = [Failure(500)] * 2
    words = [eye.url(), "--archive", archive, "--url", busy.url, "--trigger", port, "--timeout", 0.5]
    with running(*words) as watcher, asking(port) as client:
        first, second = client.get("/trigger"), client.get("/trigger")
        assert [first.status_code, second.status_code] == [503, 503]
        assert "will have its line in the journal" in first.json()["detail"]
        wait_until(lambda: journal(archive))
        watcher.send_signal(signal.SIGTERM)
    assert len(journal(archive)) == len(eye.pictures) == 1  # the second took none


def test_port_that_is_taken_ends_the_start(
    url: str, eye: CameraServer, archive: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [eye.url(), "--archive", archive, "--url", url, "--trigger", str(eye.server_port)]
    assert command.main([*map(str, words)]) == 2
    assert re.match("error: .*Address already in use", capfd.readouterr().err)


def test_place_to_listen_is_this_machine_unless_another_is_named() -> None:
    assert [Listening.parse(text) for text in ("9000", ":9000", "0.0.0.0:9000", "[::1]:9000")] == [
        Listening("127.0.0.1", 9000), Listening("127.0.0.1", 9000), Listening("0.0.0.0", 9000), Listening("::1", 9000),
    ]  # fmt: skip
    for text in ("host", "host:x", "http://host:1", "1:2:3", "99999", ""):
        with pytest.raises(ValueError, match="is not HOST:PORT"):
            Listening.parse(text)


def test_camera_addresses() -> None:
    address = Address.parse("rtsp://me:p%40ss@cam-1.local:554/a/b?x=secret")
    assert address is not None
    assert (address.login, address.shown, address.name) == (("me", "p@ss"), "rtsp://cam-1.local:554/a/b", "cam-1.local")
    assert "p%40ss" not in repr(address)
    device = Address.parse("/dev/video0")
    assert device is not None
    assert (device.name, device.shown, device.is_device, device.has_secrets) == ("video0", "/dev/video0", True, False)
    assert Address.parse("/srv/camera") is Address.parse("video.mp4") is None
    for text in ("file:///a.mp4", "rtsp://", "http://host:x/", "rtsp:///path"):
        with pytest.raises(ValueError, match="a camera is rtsp://HOST"):
            Address.parse(text)


def test_address_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, "http://me:secret@cam/picture")
    options = parse_options(["--archive", "a", "--every", "500ms"])
    assert isinstance(options.source, CameraOptions)
    assert options.source.address.login == ("me", "secret")
    assert (options.camera, options.source.every_s, options.source.trigger) == ("cam", 0.5, None)
    assert secret_source(["--archive", "a"]) is None  # it is on no command line
    assert secret_source(["http://me:secret@cam/", "--archive", "a"]) == "http://me:secret@cam/"
    assert [duration(text) for text in ("2", "500ms", "1s", "5min", "1h")] == [2, 0.5, 1, 300, 3600]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["http://cam/"], "--archive is needed for a camera"),
        (["http://cam/", "--archive", "a", "--copy"], "--copy is for a folder only"),
        (["http://cam/", "--archive", "a", "--poll", "1"], "--poll is for a folder only"),
        (["http://cam/", "--archive", "a", "--once", "--trigger", "9"], "--once does not go with --trigger"),
        (["http://cam/", "--archive", "a", "--every", "1 day"], "is not a time such as 500ms"),
        (["http://cam/", "--archive", "a", "--name", "../a"], "a name has letters"),
        ([".", "--archive", "a", "--every", "1s"], "--every is for a camera only"),
        (["ftp://me:secret@cam/", "--archive", "a"], "a camera is rtsp://HOST"),
        (["--archive", "a"], f"a folder or a camera is needed, here or in {URL_VARIABLE}"),
    ],
)
def test_wrong_usage_of_cameras_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(words)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert "secret" not in err


def test_streams_need_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("app.client.watching.options.can_stream", lambda: False)
    with pytest.raises(SystemExit):
        command.main(["rtsp://cam/", "--archive", "a"])
    assert "pip install av" in capsys.readouterr().err
