"""Decode processes: the same results as in this process, within limits, and an end in every case."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.decoding_processes.limits import Limits
from app.inference.decoding_processes.pool import DecodePool
from app.inference.decoding_processes.process import DecodeProcess
from app.inference.errors import DecodingUnavailable, TooManyPixels, UnreadableImage
from app.inference.images.cost import DecodeCost
from app.inference.images.decoding import decode
from app.inference.images.model_input import InputSpec
from tests import hostile, process_memory, valid_images
from tests.support import encode, gradient, killed_while_busy

SPEC = InputSpec(mode="RGB", height=48, width=64, fit="pad")
SMALL = encode(gradient(300, 200))
MAX_PIXELS = 25_000_000
FREE = Limits(memory=2**32, cpu_s=60, wall_s=60)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    decoders = DecodePool(2)
    decoders.start()
    yield decoders
    decoders.close()


@pytest.fixture
def process() -> Iterator[DecodeProcess]:
    started = DecodeProcess()
    started.wait_until_ready()
    yield started
    started.end()


def pid_of(process: DecodeProcess) -> int:
    return process._process.pid


def children(parent: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def wait_until(condition: object, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_images_are_decoded_as_in_this_process(pool: DecodePool) -> None:
    for name, file in valid_images.seeds().items():
        expected, decoded = decode(file, SPEC, max_pixels=MAX_PIXELS), pool.decode(file, SPEC, max_pixels=MAX_PIXELS)
        assert decoded.pixels.dtype == expected.pixels.dtype, name
        assert np.array_equal(decoded.pixels, expected.pixels), name
        assert decoded.warnings == expected.warnings, name


def test_decode_processes_have_a_lower_priority_than_the_service(process: DecodeProcess) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid_of(process)) == min(ours + 10, 19)


def test_errors_are_the_same_as_in_this_process(pool: DecodePool) -> None:
    for file, error in ((b"hello", UnreadableImage), (hostile.png(9000, 9000, rows=b""), TooManyPixels)):
        with pytest.raises(error) as expected:
            decode(file, SPEC, max_pixels=MAX_PIXELS)
        with pytest.raises(error) as raised:
            pool.decode(file, SPEC, max_pixels=MAX_PIXELS)
        assert str(raised.value) == str(expected.value)


def test_large_inputs_and_deep_pixels_come_back(pool: DecodePool) -> None:
    spec = InputSpec(mode="RGB", height=1000, width=1200)
    file = encode(Image.fromarray(np.arange(65_536, dtype=np.uint16).reshape(256, 256)))
    decoded = pool.decode(file, spec, max_pixels=MAX_PIXELS)
    assert decoded.pixels.dtype == np.float32
    assert np.array_equal(decoded.pixels, decode(file, spec, max_pixels=MAX_PIXELS).pixels)


def test_time_is_limited(process: DecodeProcess) -> None:
    slow = hostile.png(4000, 4000, depth=16, colour=2)
    with pytest.raises(UnreadableImage, match=r"took too long to decode: more than 0\.2 s of processor time"):
        process.decode(slow, SPEC, max_pixels=MAX_PIXELS, limits=FREE._replace(cpu_s=0.2))
    assert process.has_ended
    assert process._process.returncode == -signal.SIGPROF


def test_process_that_does_not_answer_is_ended(process: DecodeProcess) -> None:
    os.kill(pid_of(process), signal.SIGSTOP)
    with pytest.raises(UnreadableImage, match="took too long"):
        process.decode(SMALL, SPEC, max_pixels=MAX_PIXELS, limits=FREE._replace(wall_s=0.2))
    assert process.has_ended


def test_memory_is_limited_and_given_back(process: DecodeProcess) -> None:
    """Two kilobytes take a quarter of a gigabyte; a process that was refused it decodes the next image."""
    file = encode(Image.new("RGB", (5000, 5000)), "WEBP", lossless=True, method=0)
    for _ in range(2):
        with pytest.raises(UnreadableImage):
            process.decode(file, SPEC, max_pixels=MAX_PIXELS, limits=FREE._replace(memory=50 * 2**20))
        assert process_memory.peak_bytes(pid_of(process)) < 150 * 2**20
        process.decode(SMALL, SPEC, max_pixels=MAX_PIXELS, limits=FREE)


@pytest.mark.parametrize(
    ("mode", "file_format", "options"),
    [
        ("RGB", "JPEG", {"quality": 95}),
        ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
        ("RGBA", "PNG", {}),
        ("RGB", "WEBP", {"method": 0}),
        ("RGBA", "WEBP", {"method": 0}),
        ("RGB", "WEBP", {"method": 0, "lossless": True}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("RGB", "AVIF", {"speed": 10}),
        ("RGB", "JPEG2000", {}),
    ],
)
def test_estimate_is_enough_for_honest_images(
    pool: DecodePool, mode: str, file_format: str, options: dict[str, object]
) -> None:
    grey = gradient(1600, 1200)
    file = encode(Image.merge(mode, [grey.rotate(90 * index) for index in range(len(mode))]), file_format, **options)
    pool.decode(file, SPEC, max_pixels=MAX_PIXELS)


def test_limits_follow_the_estimate() -> None:
    small, large = (Limits.of(DecodeCost(memory, seconds), SPEC) for memory, seconds in ((10**6, 0.001), (10**9, 30)))
    assert large.memory > 2 * 10**9 > small.memory
    assert (small.cpu_s, large.cpu_s) == (2, 5)
    assert small.wall_s < large.wall_s <= 30


def test_process_that_crashes_is_replaced(pool: DecodePool) -> None:
    before = [*pool._all]
    killed = {pid_of(process) for process in before}
    with killed_while_busy([*killed]), pytest.raises(UnreadableImage, match="its decoder crashed"):
        pool.decode(SMALL, SPEC, max_pixels=MAX_PIXELS)
    while not all(process.has_ended for process in before):  # a moment after the signal
        time.sleep(0.01)
    for _ in range(2):
        pool.decode(SMALL, SPEC, max_pixels=MAX_PIXELS)
    assert not killed & {pid_of(process) for process in pool._all}


def test_closing_ends_what_is_being_decoded() -> None:
    decoders = DecodePool(1)
    decoders.start()
    (only,) = decoders._all
    os.kill(pid_of(only), signal.SIGSTOP)
    errors: list[Exception] = []

    def run() -> None:
        try:
            decoders.decode(SMALL, SPEC, max_pixels=MAX_PIXELS)
        except (UnreadableImage, DecodingUnavailable) as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    decoders.close()
    for thread in threads:
        thread.join(10)
    assert time.monotonic() - began < 5
    assert [type(error) for error in errors].count(DecodingUnavailable) == 2
    assert not decoders._all
    assert not Path(f"/proc/{pid_of(only)}").exists()


def test_processes_are_small_and_know_no_secrets(process: DecodeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    process.decode(SMALL, SPEC, max_pixels=MAX_PIXELS, limits=FREE)
    assert process_memory.resident_bytes(pid_of(process)) < 70 * 2**20
    assert "libtorch" not in Path(f"/proc/{pid_of(process)}/maps").read_text()
    monkeypatch.setenv("ANOMALY_API_KEYS", "a-secret")
    other = DecodeProcess()
    try:
        other.wait_until_ready()
        assert b"a-secret" not in Path(f"/proc/{pid_of(other)}/environ").read_bytes()
    finally:
        other.end()


def test_signals_to_the_group_do_not_end_processes(process: DecodeProcess) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid_of(process), number)
    process.decode(SMALL, SPEC, max_pixels=MAX_PIXELS, limits=FREE)


def test_processes_end_with_the_service_even_if_it_is_killed() -> None:
    program = """
import time
from app.inference.decoding_processes.pool import DecodePool
pool = DecodePool(2)
pool.start()
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == b"ready\n"
        decoders = children(service.pid)
        assert len(decoders) == 2
        service.kill()
    assert wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in decoders))


def test_start_that_fails_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(DecodingUnavailable, match="no process to decode images can be started"):
        DecodePool(1).start()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    decoders = DecodePool(1)
    with pytest.raises(DecodingUnavailable, match="ended while it started"):
        decoders.start()
    decoders.close()
