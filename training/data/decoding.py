"""Decodes image files on all processors, with the code of the service."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import numpy as np

from app.inference.decoding_processes.pool import DecodePool
from app.inference.errors import DecodingUnavailable, InferenceError
from app.inference.images.cost import decode_cost
from app.inference.images.decoding import decode
from app.inference.images.model_input import DecodedImage, InputSpec, Pixels
from app.inference.machine import usable_cores

MAX_PIXELS: Final = 200_000_000  # against decompression bombs; higher than in serving, the files are the user's own

_QUICK_S: Final = 0.005
"""Estimated seconds of decoding. Longer ones are done in processes, which takes a millisecond more: some decoders
let no other thread of their process work."""


def decode_files(files: Sequence[Path], spec: InputSpec) -> Iterator[DecodedImage | str]:
    """Each image as the model's input, contiguous, or why there is none, in order.

    Args:
        files: image files.
        spec: what to convert them to.
    """
    cores = usable_cores()
    with closing(DecodePool(cores)) as processes, ThreadPoolExecutor(cores) as threads:
        yield from threads.map(lambda path: _outcome(path, spec, processes), files)


def _outcome(path: Path, spec: InputSpec, processes: DecodePool) -> DecodedImage | str:
    try:
        decoded = _decode(path.read_bytes(), spec, processes)
    except (InferenceError, OSError) as error:
        return " ".join(str(error).split())
    # Rearranged here, in parallel: it takes as long as decoding, and images that wait for it take memory.
    pixels: Pixels = np.ascontiguousarray(decoded.pixels)  # type: ignore[assignment]  # of the same type
    return decoded._replace(pixels=pixels)


def _decode(file: bytes, spec: InputSpec, processes: DecodePool) -> DecodedImage:
    if decode_cost(file, spec).seconds > _QUICK_S:
        with suppress(DecodingUnavailable):  # the system allows no further process
            return processes.decode(file, spec, max_pixels=MAX_PIXELS)
    return decode(file, spec, max_pixels=MAX_PIXELS)
