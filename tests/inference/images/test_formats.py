"""The table of image formats."""

import numpy as np
import pytest
from PIL import Image

from app.client.file_search import IMAGE_SUFFIXES
from app.inference.errors import TooManyPixels
from app.inference.images.decoding import open_image
from app.inference.images.formats import BUILT_IN, HAS_HEIC, MEDIA_TYPES, NAMES, SUFFIXES, ImageFormat
from app.inference.images.model_input import InputSpec
from tests.support import encode, gradient


@pytest.mark.parametrize("each", BUILT_IN, ids=[each.name for each in BUILT_IN])
def test_media_types_and_suffixes_are_those_of_pillow(each: ImageFormat) -> None:
    Image.init()
    name, media_type, suffixes = each
    assert Image.MIME[name] == media_type
    assert {Image.registered_extensions()[suffix] for suffix in suffixes} == {name}


def test_suffixes_and_media_types_are_unique() -> None:
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert len(set(MEDIA_TYPES)) == len(MEDIA_TYPES)


def test_client_uses_the_same_suffixes() -> None:
    """The client does not import code of the service, so it has its own list."""
    assert set(IMAGE_SUFFIXES) == {suffix for each in BUILT_IN for suffix in each.suffixes}


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
