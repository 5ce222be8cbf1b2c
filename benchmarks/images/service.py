"""The whole service on large images against the naive application, with the same model, at eight connections."""

import contextlib
import json
from pathlib import Path
from typing import Final

import torch

from app.inference.images.decoding import decode
from app.inference.images.model_input import InputSpec
from benchmarks.images.photographs import encoded, photographs
from benchmarks.load.wrk import Load, check_script, post_script, run_wrk
from benchmarks.servers import PATH, alternate, ask, golden_image, model_folder, reference, service, started
from benchmarks.table import Line, ratio

_CONNECTIONS: Final = 8
_CASES: Final = ((1920, 1080, "JPEG"), (640, 480, "PNG"))
_GOAL: Final = 2.0
MAX_PIXELS: Final = 25_000_000


def measure(rounds: int, seconds: int, folder: Path | None) -> list[Line]:
    """A line for each kind of image: requests per second, and the service's ÷ the naive application's.

    Args:
        rounds: each runs both sides.
        seconds: duration of a run.
        folder: of photographs; None: a computed one.

    Raises:
        BenchmarkError: a server does not start, or gave a wrong answer.
    """
    golden = golden_image()
    lines = []
    with contextlib.ExitStack() as running:
        ours = running.enter_context(started(service({}), golden))
        naive = running.enter_context(started(reference("naive"), golden))
        for width, height, file_format in _CASES:
            images = [encoded(image, file_format) for image in photographs(width, height, folder)]
            script = post_script(PATH, images, f"image/{file_format.lower()}")
            check_ours = check_script([expected(image) for image in images])
            check_naive = check_script([_mse(ask(naive.port, image)) for image in images])

            def load(url: str, checked: str) -> Load:
                return run_wrk(url, checked, _CONNECTIONS, seconds)

            sides = (ours.url, script + check_ours), (naive.url, script + check_naive)
            mine, theirs = ((lambda side=side: load(*side)) for side in sides)
            name = f"{width} × {height} {file_format}"
            pairs = [(one.requests_per_s, other.requests_per_s) for one, other in alternate(name, mine, theirs, rounds)]
            lines.append(ratio(f"{name}: requests/s ÷ a naive FastAPI app, {_CONNECTIONS} connections", pairs, _GOAL))
    return lines


def shipped_model() -> tuple[torch.jit.ScriptModule, InputSpec]:
    """The model that the service is measured with, and what it needs."""
    manifest = json.loads((model_folder() / "manifest.json").read_text())
    model = torch.jit.load(str(model_folder() / "model.pt"))  # type: ignore[no-untyped-call]
    return model, InputSpec.model_validate(manifest["input"])


def expected(image: bytes) -> float:
    """The mean squared error that the service must answer."""
    model, spec = shipped_model()
    decoded = decode(image, spec, max_pixels=MAX_PIXELS)
    with torch.inference_mode():
        _, mse, *_ = model(decoded.tensor[None])
    return float(mse)


def _mse(answer: bytes) -> float:
    return float(json.loads(answer)["results"][0]["mse"])
