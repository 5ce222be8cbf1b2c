"""Decode processes of the real service: hostile files, crashes, and an end with the service in every state."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.inference.bundles.store import ModelStore
from tests import hostile
from tests.support import Server, encode, gradient, killed_while_busy, make_bundle, running_server

QUICK, LARGE = encode(gradient(700, 500), "JPEG"), encode(gradient(2000, 1500), "JPEG")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    ModelStore(folder).publish(*make_bundle("a"))
    return folder


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(store, tmp_path_factory.mktemp("server") / "log", model="a") as running:
        yield running


def post(server: Server, file: bytes) -> httpx.Response:
    return server.client.post("/score", content=file, headers={"Content-Type": "application/octet-stream"})


def decoders_of(server: Server) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, status = (folder / "cmdline").read_text(), (folder / "status").read_text()
        except OSError:
            continue
        if "decoding_processes" in command and f"PPid:\t{server.process.pid}\n" in status:
            found.append(int(folder.name))
    return found


def test_large_images_are_decoded_in_processes(server: Server) -> None:
    assert len(decoders_of(server)) == 2
    assert post(server, LARGE).status_code == 200
    for each in decoders_of(server):
        os.kill(each, signal.SIGKILL)
    time.sleep(0.5)
    assert post(server, LARGE).status_code == 200, "processes that have ended are replaced"


def test_images_that_are_decoded_quickly_need_no_process(server: Server) -> None:
    decoders = decoders_of(server)
    for each in decoders:
        os.kill(each, signal.SIGSTOP)
    response = post(server, QUICK)
    for each in decoders:
        os.kill(each, signal.SIGCONT)
    assert response.status_code == 200


@pytest.mark.parametrize(
    "file",
    [
        hostile.jpeg_segments(200_000, b"Exif\0\0" + bytes(23)),
        hostile.corpus()["png-profiles"],
        hostile.corpus()["bmp-rle-rows-that-end"],
        encode(Image.new("RGB", (5000, 5000)), "WEBP", lossless=True, method=0),
    ],
    ids=["jpeg-exif-segments", "png-profiles", "bmp-runs", "webp-large"],
)
def test_hostile_files_are_answered_soon(server: Server, file: bytes) -> None:
    began = time.monotonic()
    response = post(server, file)
    assert response.status_code in {200, 422}
    assert time.monotonic() - began < 10


def test_image_whose_decoder_crashes_is_rejected_like_a_damaged_one(server: Server) -> None:
    with killed_while_busy(decoders_of(server)):
        response = post(server, LARGE)
    assert response.status_code == 422
    assert response.json()["type"] == "urn:problem-type:unreadable-image"
    assert "decoder crashed" in response.json()["detail"]
    assert post(server, LARGE).status_code == 200


def test_processes_end_with_a_service_that_is_killed(store: Path, tmp_path: Path) -> None:
    decoders: list[int] = []
    with suppress(AssertionError), running_server(store, tmp_path / "log", model="a") as server:  # a wrong status
        decoders += decoders_of(server)
        server.process.kill()
    assert decoders
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{each}/cmdline").read_text() for each in decoders if Path(f"/proc/{each}").exists()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
