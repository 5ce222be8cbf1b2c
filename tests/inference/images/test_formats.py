"""The table of image formats."""

import pytest
from PIL import Image

from app.client.file_search import IMAGE_SUFFIXES
from app.inference.images.formats import FORMATS, MEDIA_TYPES, NAMES, SUFFIXES


@pytest.mark.parametrize("each", FORMATS, ids=NAMES)
def test_media_types_and_suffixes_are_those_of_pillow(each: object) -> None:
    Image.init()
    assert each in FORMATS
    name, media_type, suffixes = each
    assert Image.MIME[name] == media_type
    assert {Image.registered_extensions()[suffix] for suffix in suffixes} == {name}


def test_suffixes_and_media_types_are_unique() -> None:
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert len(set(MEDIA_TYPES)) == len(MEDIA_TYPES)


def test_client_uses_the_same_suffixes() -> None:
    """The client does not import code of the service, so it has its own list."""
    assert set(IMAGE_SUFFIXES) == set(SUFFIXES)
