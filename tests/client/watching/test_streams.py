"""``watch rtsp://…``, ``tcp://…``, ``http://…`` of a stream, ``/dev/video…``: the newest picture, whatever happens."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import pytest

pytest.importorskip("av", reason="the extra `camera` is not installed")

import av
from PIL import Image, ImageChops

from app.client.watching import command
from app.client.watching.sources import reader
from app.client.watching.sources.address import Address
from app.client.watching.sources.camera import CameraAway, Outage
from app.client.watching.sources.stream import StreamCamera
from tests.client.watching.cameras import PART, PASSWORD, USER, Out, camera, jpeg, motion_jpeg, number, tcp_server
from tests.client.watching.conftest import files, journal, running, wait_until
from tests.support import free_port

GSTREAMER = shutil.which("python3", path="/usr/bin")


def archived(archive: Path) -> list[int]:
    """The numbers of the pictures that are archived, in the order of the journal."""
    return [number(archive / line["archived"]) for line in journal(archive)]


def test_pictures_of_a_stream_are_scored_once_and_archived_without_loss(url: str, archive: Path) -> None:
    ended = threading.Event()
    with camera(stream=motion_jpeg(ended)) as server:
        words = [server.url("/stream"), "--name", "c", "--archive", archive, "--url", url, "--every", "20ms"]
        with running(*words) as watcher:
            wait_until(lambda: len(journal(archive)) >= 5)
            watcher.send_signal(signal.SIGTERM)
            _, err = watcher.communicate(timeout=60)
        ended.set()
    assert err == ""
    assert archived(archive) == sorted(set(archived(archive)))
    assert len(files(archive)) in {1 + len(journal(archive)), 2 + len(journal(archive))}  # perhaps one in progress
    (kind,) = {Path(line["file"]).suffix for line in journal(archive)}
    assert kind == ".png"


async def _take(address: str, use: Callable[[StreamCamera], Awaitable[None]], timeout_s: float = 20) -> list[str]:
    """Opens a stream, and returns what was told."""
    told: list[str] = []
    stream = StreamCamera(Address(address), timeout_s, Outage("c", told.append))
    try:
        await use(stream)
    finally:
        await stream.aclose()
    return told


def test_newest_picture_is_taken_and_not_the_next_of_a_queue() -> None:
    """200 pictures come at once; then no more. Each that is taken is newer than the one before, most are never."""
    taken: list[int] = []
    ended = threading.Event()

    def burst(_: int, out: Out) -> None:
        out.write(b"".join(PART % (len(jpeg(each)), jpeg(each)) for each in range(200)) + b"--frame\r\n")
        ended.wait()

    async def use(stream: StreamCamera) -> None:
        while not taken or taken[-1] < 199:
            taken.append(number((await stream.picture(60)).content))

    with camera(stream=burst) as server:
        asyncio.run(_take(server.url("/stream"), use))
        ended.set()
    assert taken == sorted(set(taken))
    assert len(taken) < 100


def test_picture_for_a_trigger_is_received_after_it() -> None:
    """The stream shows one picture, then another once the trigger waits."""
    triggered, ended = threading.Event(), threading.Event()

    def show(_: int, out: Out) -> None:
        for each, until in ((10, triggered), (200, ended)):
            while True:
                out.write(PART % (len(jpeg(each)), jpeg(each)))
                if until.wait(0.05):
                    break

    async def use(stream: StreamCamera) -> None:
        assert number((await stream.picture(60)).content) == 10
        await asyncio.sleep(0.2)  # others come, which are not asked for
        triggered.set()
        waiting = [number((await stream.picture(0)).content) for _ in range(5)]
        assert waiting[-1] == 200

    with camera(stream=show) as server:
        asyncio.run(_take(server.url("/stream"), use))
        ended.set()


def test_only_pictures_after_the_call_count_for_a_trigger() -> None:
    newest = reader.Newest()
    old, new = av.VideoFrame(2, 2, "gray"), av.VideoFrame(2, 2, "gray")
    newest.put(old)
    threading.Timer(0.05, newest.put, [new]).start()
    assert newest.take(0)[0] is new
    newest.put(old)
    assert newest.take(60)[0] is old
    assert newest.wait(0.01) == "no picture for 0.01 s"


def test_stream_that_hangs_is_connected_again(url: str, archive: Path) -> None:
    ended = threading.Event()
    pictures = motion_jpeg(ended)

    def hang_first(connection: int, out: Out) -> None:
        if connection == 2:  # the first finds out that it is no snapshot
            out.write(b"".join(PART % (len(jpeg(each)), jpeg(each)) for each in range(20)))
            ended.wait()
        else:
            pictures(connection, out)

    with camera(stream=hang_first) as server:
        words = [server.url("/stream"), "--name", "c", "--archive", archive, "--url", url, "--every", "50ms"]
        with running(*words, "--camera-timeout", 2) as watcher:
            assert watcher.stderr is not None
            assert watcher.stderr.readline() == "camera c is away: no picture for 2 s; trying again\n"
            assert watcher.stderr.readline() == "camera c is back\n"
            before = len(journal(archive))
            wait_until(lambda: len(journal(archive)) > before)
            watcher.send_signal(signal.SIGTERM)
            watcher.communicate(timeout=60)
        ended.set()
    assert server.connections == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_process_that_is_killed_is_started_again(url: str, archive: Path) -> None:
    ended = threading.Event()

    def readers() -> list[int]:
        return [*map(int, Path(f"/proc/{watcher.pid}/task/{watcher.pid}/children").read_text().split())]

    with camera(stream=motion_jpeg(ended, fps=10)) as server:
        words = [server.url("/stream"), "--name", "c", "--archive", archive, "--url", url, "--every", "50ms"]
        with running(*words) as watcher:
            wait_until(lambda: journal(archive))
            (first,) = readers()
            os.kill(first, signal.SIGKILL)
            assert watcher.stderr is not None
            assert "the process that reads it has ended" in watcher.stderr.readline()
            assert watcher.stderr.readline() == "camera c is back\n"
            (second,) = readers()
            watcher.send_signal(signal.SIGKILL)
            watcher.wait(60)
            wait_until(lambda: not Path(f"/proc/{second}/cmdline").exists() or _is_zombie(second))
            watcher.returncode = 0
        ended.set()


def _is_zombie(process: int) -> bool:
    return ") Z " in Path(f"/proc/{process}/stat").read_text()


@pytest.mark.parametrize("content", [b"\x47" + os.urandom(187), b""], ids=["garbage", "nothing"])
def test_stream_of_garbage_is_away(content: bytes) -> None:
    async def use(stream: StreamCamera) -> None:
        with pytest.raises(CameraAway):
            await stream.picture(0)
        with pytest.raises(CameraAway):  # at once, while it is waited
            await stream.picture(0)

    with camera(stream=lambda _, out: _ignore(out.write(content * 100)), media_type="video/mp2t") as server:
        told = asyncio.run(_take(server.url("/stream"), use))
    assert len(told) == 1
    assert re.fullmatch(r"camera c is away: [\w /]+; trying again", told[0])
    assert str(server.server_port) not in told[0]


def _ignore(_: object) -> None:
    """For lambdas that return nothing."""


def h264(out: Out, pictures: int, ended: threading.Event) -> None:
    """Sends MPEG-TS with H.264, 20 pictures a second, or all at once; only each tenth stands alone."""
    with av.open(_Unseekable(out), "w", format="mpegts") as container:
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
        video = container.add_stream("libx264", rate=20, options=options)
        video.width, video.height, video.pix_fmt, video.time_base = 64, 64, "yuv420p", Fraction(1, 20)
        for each in range(pictures):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 64), (each, each, each)))  # type: ignore[no-untyped-call]  # not annotated in PyAV
            frame.pts = each
            container.mux(video.encode(frame))
            ended.wait(0.05)
        container.mux(video.encode(None))


class _Unseekable:
    """What PyAV needs to write to a socket."""

    def __init__(self, out: Out) -> None:
        self.write = out.write


def test_h264_stream_over_tcp(url: str, archive: Path) -> None:
    ended = threading.Event()
    with tcp_server(lambda out: h264(out, 255, ended)) as address:
        words = [address, "--archive", archive, "--url", url, "--once"]
        assert command.main([*map(str, words)]) == 0
        ended.set()
    (line,) = journal(archive)
    assert line["camera"] == "127.0.0.1"
    with Image.open(archive / line["archived"]) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))
        low, high = image.convert("L").getextrema()
        assert isinstance(low, int)
        assert isinstance(high, int)
        assert high - low <= 2  # one grey, without damage


@pytest.mark.parametrize("slow", [True, False])
def test_machine_that_is_too_slow_decodes_whole_pictures_only(monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    if slow:
        monkeypatch.setattr(reader, "_WAITED_S", 60)  # as if it never had to wait for a picture
        monkeypatch.setattr(reader, "_BEHIND_S", 0)
    at_once, newest = threading.Event(), reader.Newest()
    numbers: list[int] = []
    monkeypatch.setattr(newest, "put", lambda frame: numbers.append(frame.pts // 4500))  # of 1/90,000 s
    at_once.set()
    with tcp_server(lambda out: h264(out, 90, at_once)) as address, pytest.raises(EOFError):
        reader.decode(address, newest)
    assert numbers
    assert all(each % 10 == 0 for each in numbers) == slow


def test_device_that_does_not_exist_is_one_clear_line(url: str, archive: Path) -> None:
    with running("/dev/video63", "--archive", archive, "--url", url) as watcher:
        assert watcher.stderr is not None
        assert watcher.stderr.readline() == "camera video63 is away: No such file or directory; trying again\n"
        watcher.send_signal(signal.SIGTERM)
        out, err = watcher.communicate(timeout=60)
    assert err == ""
    assert re.fullmatch(r"0 images: 0 normal, 0 anomalous; 0 waiting, \d+ missed\n", out)


@contextmanager
def rtsp(port: int, picture: Path, *login: str) -> Iterator[None]:
    """A server of ``rtsp://127.0.0.1:PORT/line``."""
    script = Path(__file__).with_name("rtsp_server.py")
    versions = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if GSTREAMER is None or subprocess.run([GSTREAMER, "-c", versions], capture_output=True, check=False).returncode:
        pytest.skip("GStreamer's RTSP server is not installed: gir1.2-gst-rtsp-server-1.0 and python3-gi")
    with Image.open(picture) as image:
        size = [*map(str, image.size)]
    server = subprocess.Popen(
        [GSTREAMER, script, str(port), picture, *size, *login], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"listens\n"
        yield
    finally:
        server.kill()
        server.communicate()


def test_rtsp_camera_with_a_login_that_comes_and_goes(url: str, archive: Path, tmp_path: Path) -> None:
    picture, port = tmp_path / "line.png", free_port()
    Image.linear_gradient("L").convert("RGB").save(picture)
    words = [f"rtsp://{USER}:s3cret%3Apa%2Fss@127.0.0.1:{port}/line", "--name", "c", "--archive", archive, "--url", url]
    with running(*words, "--every", "200ms") as watcher:
        assert watcher.stderr is not None
        assert watcher.stderr.readline() == "camera c is away: Connection refused; trying again\n"
        with rtsp(port, picture, USER, PASSWORD):
            assert watcher.stderr.readline() == "camera c is back\n"
            wait_until(lambda: journal(archive))
        assert "camera c is away: " in watcher.stderr.readline()
        watcher.send_signal(signal.SIGTERM)
        out, err = watcher.communicate(timeout=60)
    assert "s3cret" not in out + err
    with Image.open(archive / journal(archive)[0]["archived"]) as image, Image.open(picture) as original:
        assert image.size == original.size
        differences = ImageChops.difference(image, original).tobytes()
    assert max(differences) < 40  # of 255; the server sends JPEG


def test_rtsp_camera_that_refuses_the_login_says_so(tmp_path: Path) -> None:
    picture, port = tmp_path / "line.png", free_port()
    Image.linear_gradient("L").convert("RGB").save(picture)

    async def use(stream: StreamCamera) -> None:
        with pytest.raises(CameraAway):
            await stream.picture(0)

    with rtsp(port, picture, USER, PASSWORD):
        (told,) = asyncio.run(_take(f"rtsp://{USER}:wrong@127.0.0.1:{port}/line", use))
    assert told == "camera c is away: Server returned 401 Unauthorized (authorization failed); trying again"
