"""Images in JSON bodies, as base64 text."""

import binascii
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.errors import MalformedJson, validation_reasons
from app.inference.errors import UnreadableImage

# Millions of small objects would take seconds and a gigabyte to parse.
_MAX_BRACES: Final = 10_000

_SPACES: Final = b" \t\r\n"  # as programs break lines of base64


class EncodedImage(BaseModel):
    """An image file in a JSON body."""

    model_config = ConfigDict(extra="forbid")

    data: str = Field(description="the file as base64, or as a data URI such as `data:image/png;base64,iVBORw0K…`")
    filename: str | None = Field(None, description="returned with the result, otherwise unused")


class EncodedImages(BaseModel):
    """The JSON body of ``POST /score``."""

    model_config = ConfigDict(extra="forbid")

    images: list[EncodedImage]


def parse_images(body: bytes) -> list[EncodedImage]:
    """The images of a JSON body, not yet decoded.

    Raises:
        MalformedJson: the body is not JSON, or not of the form of :class:`EncodedImages`.
    """
    if body.count(b"{") > _MAX_BRACES:
        raise MalformedJson(f"the body has more than {_MAX_BRACES} objects")
    try:
        return EncodedImages.model_validate_json(body).images
    except ValidationError as error:
        raise MalformedJson(validation_reasons(error, "body")[0]) from error


def decode_base64(text: str) -> bytes:
    """The file in a base64 text or a base64 data URI.

    Raises:
        UnreadableImage: the text is not valid base64.
    """
    if text.startswith("data:"):
        kind, comma, text = text.partition(",")
        if not comma or not kind.endswith(";base64"):
            raise UnreadableImage("the data URI is not of the form data:image/png;base64,…")
    try:
        return binascii.a2b_base64(text.encode("ascii").translate(None, _SPACES), strict_mode=True)
    except UnicodeEncodeError as error:
        raise UnreadableImage("the data are not valid base64: they have characters outside ASCII") from error
    except binascii.Error as error:
        raise UnreadableImage(f"the data are not valid base64: {str(error).lower()}") from error
