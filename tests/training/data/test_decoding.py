"""Decoding of files for training: in order, in processes if it takes long, and nothing but the inputs is kept."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.images.cost import decode_cost
from app.inference.images.decoding import decode
from app.inference.images.model_input import DecodedImage, InputSpec
from tests import process_memory
from tests.support import encode
from training.data import folders
from training.data.decoding import decode_files

SPEC = InputSpec(mode="RGB", height=32, width=32, reduction="area", jpeg="scaled")
PHOTO = Image.merge("RGB", [Image.effect_noise((700, 700), sigma) for sigma in (40, 20, 60)])


def write(folder: Path, contents: Sequence[bytes]) -> list[Path]:
    files = [folder / f"{number:02}" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    return files


SLOW = [encode(PHOTO, "PNG", compress_level=1), encode(PHOTO, "JPEG"), encode(PHOTO, "WEBP", method=0)]
QUICK = [encode(PHOTO.resize((40, 30)), "PNG"), encode(PHOTO.resize((32, 32)), "JPEG")]
BROKEN = SLOW[0][: len(SLOW[0]) // 2] + SLOW[0][-12:]
CONTENTS = [SLOW[0], QUICK[0], b"no image", SLOW[1], BROKEN, QUICK[1], SLOW[2]]


def check(outcomes: Sequence[DecodedImage | str]) -> None:
    for outcome, content in zip(outcomes, CONTENTS, strict=True):
        if isinstance(outcome, str):
            assert "readable image" in outcome or "cannot be decoded" in outcome
            continue
        expected = decode(content, SPEC, max_pixels=10**7)
        assert np.array_equal(outcome.pixels, expected.pixels)
        assert outcome.warnings == expected.warnings
    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, str)] == [2, 4]


def test_files_are_decoded_in_order_in_processes_and_in_this_one(tmp_path: Path) -> None:
    assert decode_cost(SLOW[0], SPEC).seconds > 4 * decode_cost(QUICK[0], SPEC).seconds
    check(list(decode_files(write(tmp_path, CONTENTS), SPEC)))


def test_images_are_decoded_here_if_no_process_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    check(list(decode_files(write(tmp_path, CONTENTS), SPEC)))


def test_memory_holds_inputs_of_large_images_and_never_the_originals(tmp_path: Path) -> None:
    count = 24
    files = write(tmp_path, SLOW[:2] * (count // 2))
    folders.decode(files[:2], SPEC, cache=None)  # loads what the first images load
    process_memory.forget_peak("self")
    before = process_memory.resident_bytes("self")
    images = folders.decode(files, SPEC, cache=None).images
    assert len(images) == count
    original = PHOTO.width * PHOTO.height * 3
    assert process_memory.peak_bytes("self") - before < count * original / 3
