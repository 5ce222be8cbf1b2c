"""The table of image formats."""

import re

import numpy as np
import pytest
from PIL import Image

from app.files.formats import BUILT_IN, HAS_HEIC, MEDIA_TYPES, NAMES, SUFFIXES, ImageFormat
from app.inference.errors import TooManyPixels
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec
from tests.support import ROOT, encode, gradient

READ_AS = {"MPO": "JPEG"}  # a file with several JPEG images: Pillow opens it as JPEG


@pytest.mark.parametrize("each", BUILT_IN, ids=[each.name for each in BUILT_IN])
def test_media_types_and_suffixes_are_those_of_pillow(each: ImageFormat) -> None:
    Image.init()
    name, media_type, suffixes = each
    assert Image.MIME[name] == media_type
    usual = {suffix for suffix, found in Image.registered_extensions().items() if READ_AS.get(found, found) == name}
    assert set(suffixes) == usual


def test_suffixes_and_media_types_are_unique() -> None:
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert len(set(MEDIA_TYPES)) == len(MEDIA_TYPES)


def test_the_page_takes_the_same_suffixes_from_folders() -> None:
    script = (ROOT / "app" / "api" / "static" / "page" / "sources" / "file_input.js").read_text()
    (suffixes,) = re.findall(r"IMAGE_NAME = /\\\.\((.*)\)\$/i", script)
    assert {f".{suffix}" for suffix in suffixes.split("|")} == {suffix for each in BUILT_IN for suffix in each.suffixes}


def test_heic_is_a_format_if_its_package_is_installed() -> None:
    assert ("HEIF" in NAMES) is (".heic" in SUFFIXES) is HAS_HEIC


def test_heic_images_are_decoded() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = encode(gradient(), "HEIF", quality=-1)
    decoded = open_image(data, max_pixels=64).decode(InputSpec(mode="L", height=8, width=8))
    assert np.abs(decoded.pixels[0].astype(int) - np.asarray(gradient()).astype(int)).max() <= 3
    with pytest.raises(TooManyPixels):
        open_image(data, max_pixels=63)
