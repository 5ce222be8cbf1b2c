"""Where an image is anomalous: the labels and the mask of DetectAnomalies."""

import binascii
import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.api.lookout.schemas import Anomaly, PixelAnomaly
from app.inference.serving.batch_scorer import Scored
from app.inference.serving.scoring import Results

_BACKGROUND: Final = (0xFF, 0xFF, 0xFF)
_ANOMALY: Final = (0x23, 0xA4, 0x36)


def places_above(results: Results, scored: Scored) -> NDArray[np.bool_] | None:
    """Which pixels lie above the threshold in use: (height, width) of the image, reduced to at most 1024 on a side.

    None if the model has no map.
    """
    return results.localize(scored).mask() > 0 if results.has_regions else None


def labels(places: NDArray[np.bool_]) -> list[Anomaly]:
    """The two labels of a mask with their areas."""
    area = float(places.mean())
    return [
        Anomaly(Name="background", PixelAnomaly=PixelAnomaly(TotalPercentageArea=1 - area, Color=_hex(_BACKGROUND))),
        Anomaly(Name="anomaly", PixelAnomaly=PixelAnomaly(TotalPercentageArea=area, Color=_hex(_ANOMALY))),
    ]


def mask(places: NDArray[np.bool_], size: tuple[int, int]) -> str:
    """The mask as a PNG file in base64, (width, height) pixels, in the colours of its labels."""
    picture = Image.fromarray(places.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    picture.putpalette([*_BACKGROUND, *_ANOMALY])
    file = io.BytesIO()
    picture.save(file, "PNG")
    return binascii.b2a_base64(file.getvalue(), newline=False).decode()


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + bytes(colour).hex().upper()
