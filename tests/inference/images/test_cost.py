"""The estimate of what decoding takes: from the header alone, at least what is used, and never an error."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from app.inference.images.cost import decode_cost
from app.inference.images.model_input import InputSpec
from tests import hostile, valid_images
from tests.support import encode, gradient

SIDE = 1200
SMALL = 4 * 2**20
SPEC = InputSpec(mode="RGB", height=64, width=64)
SCALED = SPEC.model_copy(update={"jpeg": "scaled"})


def large(mode: str, file_format: str, **options: object) -> bytes:
    grey = gradient(SIDE, SIDE)
    colour = Image.merge("RGB", [grey, grey.rotate(90), grey.rotate(180)])
    image = colour if mode in {"RGB", "P"} else grey
    return encode(image.convert(mode), file_format, **options)


LARGE = {
    "png-grey": large("L", "PNG"),
    "png-colour": large("RGB", "PNG"),
    "png-transparent": large("RGBA", "PNG"),
    "png-palette": large("P", "PNG"),
    "png-16-bit": large("I;16", "PNG"),
    "jpeg": large("RGB", "JPEG"),
    "jpeg-grey": large("L", "JPEG"),
    "jpeg-cmyk": large("CMYK", "JPEG"),
    "jpeg-progressive": large("RGB", "JPEG", progressive=True, subsampling=0),
    "webp": large("RGB", "WEBP", method=0),
    "webp-lossless": large("RGB", "WEBP", lossless=True, method=0),
    "webp-transparent": large("RGBA", "WEBP", method=0),
    "webp-animated": large("RGB", "WEBP", method=0, save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE))]),
    "gif": large("P", "GIF", transparency=1),
    "bmp": large("RGB", "BMP"),
    "bmp-palette": large("P", "BMP"),
    "bmp-runs": hostile.bmp(SIDE, SIDE, compression=1, pixels=b"\0\1"),
    "tiff": large("RGB", "TIFF"),
    "tiff-packed": large("RGB", "TIFF", compression="tiff_lzw"),
    "tiff-transparent": large("RGBA", "TIFF"),
    "tiff-float": large("F", "TIFF"),
    "tiff-big": large("L", "TIFF", big_tiff=True),
    "avif": large("RGB", "AVIF", speed=10),
    "avif-grey": large("L", "AVIF", speed=10),
    "jpeg2000": large("RGB", "JPEG2000"),
    "jpeg2000-codestream": large("L", "JPEG2000", no_jp2=True),
}

_MEASURE = """
import sys
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec
from tests import process_memory
from pathlib import Path
data, spec = Path(sys.argv[1]).read_bytes(), InputSpec.model_validate_json(sys.argv[3])
small = Path(sys.argv[2]).read_bytes()
open_image(small, max_pixels=10**8).decode(spec)  # loads what the first image loads
process_memory.forget_peak("self")
before = process_memory.resident_bytes("self")
open_image(data, max_pixels=10**8).decode(spec)
print(process_memory.peak_bytes("self") - before)
"""


@pytest.mark.parametrize("name", LARGE)
def test_every_format_is_estimated_by_its_header(name: str) -> None:
    cost = decode_cost(LARGE[name], SPEC)
    assert cost.memory >= 2 * SIDE * SIDE
    assert cost.seconds >= 10e-9 * SIDE * SIDE


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        *((name, SPEC) for name in ("png-colour", "png-transparent", "gif", "tiff-float", "jpeg2000")),
        *((name, SPEC) for name in ("webp", "webp-lossless", "webp-transparent", "webp-animated")),
        ("jpeg-progressive", SPEC),
        ("jpeg-progressive", SCALED),
        ("jpeg", SCALED),
    ],
)
def test_decoding_takes_no_more_memory_than_estimated(name: str, spec: InputSpec, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(LARGE[name])
    with Image.open(tmp_path / "image") as image:
        (tmp_path / "small").write_bytes(encode(gradient(), image.format or ""))
    command = [
        sys.executable, "-c", _MEASURE, str(tmp_path / "image"), str(tmp_path / "small"), spec.model_dump_json(),
    ]  # fmt: skip
    used = int(subprocess.run(command, check=True, capture_output=True).stdout)
    estimated = decode_cost(LARGE[name], spec).memory
    assert estimated / 50 < used <= estimated


@pytest.mark.parametrize("name", ["jpeg", "jpeg-grey", "jpeg-cmyk", "jpeg-progressive"])
def test_jpeg_image_at_a_fraction_of_its_size_costs_less(name: str) -> None:
    full, scaled = decode_cost(LARGE[name], SPEC), decode_cost(LARGE[name], SCALED)
    assert scaled.seconds < full.seconds
    assert scaled.memory <= full.memory  # of a progressive image, the coefficients take most
    wide = SCALED.model_copy(update={"width": 1000})  # too large, if the image has to be turned
    assert decode_cost(LARGE[name], wide) == full


def test_small_webp_file_of_a_large_image_is_expensive() -> None:
    """Two kilobytes that take a quarter of a gigabyte."""
    file = encode(Image.new("RGB", (5000, 5000)), "WEBP", lossless=True, method=0)
    assert len(file) < 2000
    assert decode_cost(file, SPEC).memory > 250e6


def test_animated_webp_is_more_expensive() -> None:
    """Pillow decodes it, which keeps several pictures."""
    assert decode_cost(LARGE["webp-animated"], SPEC).memory > 2 * decode_cost(LARGE["webp"], SPEC).memory


def test_progressive_jpeg_is_more_expensive() -> None:
    one, other = decode_cost(LARGE["jpeg"], SPEC), decode_cost(LARGE["jpeg-progressive"], SPEC)
    assert other.memory > one.memory
    assert other.seconds > one.seconds


@pytest.mark.parametrize("content", [b"", b"hello", bytes(100_000), b"\xff" * 100_000, b"RIFF", b"MM\0*", b"II*\0"])
def test_what_is_no_image_costs_little(content: bytes) -> None:
    cost = decode_cost(content, SPEC)
    assert cost.memory <= SMALL
    assert 0 < cost.seconds < 0.01


def test_damaged_and_hostile_headers_are_estimated_at_once() -> None:
    files = [*hostile.corpus().values(), *(file[:cut] for file in valid_images.seeds().values() for cut in range(80))]
    began = time.process_time()
    for file in files:
        cost = decode_cost(file, SPEC)
        assert cost.memory >= 0
        assert cost.seconds >= 0
    assert (time.process_time() - began) / len(files) < 0.002


def test_estimate_takes_microseconds() -> None:
    began = time.process_time()
    for file in LARGE.values():
        decode_cost(file, SPEC)
    assert (time.process_time() - began) / len(LARGE) < 0.001
