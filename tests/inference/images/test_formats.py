"""The table of image formats."""

import pytest
from PIL import Image

from app.client.file_search import IMAGE_SUFFIXES
from app.inference.images.formats import FORMATS, MEDIA_TYPES, NAMES, SUFFIXES


@pytest.mark.parametrize("each", FORMATS, ids=NAMES)
def test_pillow_agrees_on_media_type_and_suffixes(each: object) -> None:
    Image.init()
    assert each in FORMATS
    name, media_type, suffixes = each
    assert Image.MIME[name] == media_type
    assert {Image.registered_extensions()[suffix] for suffix in suffixes} == {name}


def test_no_suffix_or_media_type_belongs_to_two_formats() -> None:
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert len(set(MEDIA_TYPES)) == len(MEDIA_TYPES)


def test_the_client_sends_the_same_suffixes() -> None:
    """The client imports nothing of the service, so it has a list of its own."""
    assert set(IMAGE_SUFFIXES) == set(SUFFIXES)
