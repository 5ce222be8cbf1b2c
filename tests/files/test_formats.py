"""The table of image formats."""

import re

import pytest
from PIL import Image

from app.files.formats import FORMATS, MEDIA_TYPES, NAMES, SUFFIXES
from tests.support import ROOT

READ_AS = {"MPO": "JPEG"}  # a file with several JPEG images: Pillow opens it as JPEG


@pytest.mark.parametrize("each", FORMATS, ids=NAMES)
def test_media_types_and_suffixes_are_those_of_pillow(each: object) -> None:
    Image.init()
    assert each in FORMATS
    name, media_type, suffixes = each
    assert Image.MIME[name] == media_type
    usual = {suffix for suffix, found in Image.registered_extensions().items() if READ_AS.get(found, found) == name}
    assert set(suffixes) == usual


def test_suffixes_and_media_types_are_unique() -> None:
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert len(set(MEDIA_TYPES)) == len(MEDIA_TYPES)


def test_the_page_takes_the_same_suffixes_from_folders() -> None:
    script = (ROOT / "app" / "api" / "static" / "page" / "file_input.js").read_text()
    (suffixes,) = re.findall(r"IMAGE_NAME = /\\\.\((.*)\)\$/i", script)
    assert {f".{suffix}" for suffix in suffixes.split("|")} == set(SUFFIXES)
