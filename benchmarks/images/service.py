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
from benchmarks.servers import PATH, SHIPPED, Model, alternate, ask, reference, service, started
from benchmarks.table import Line, ratio

_CONNECTIONS: Final = 8
_CASES: Final = ((1920, 1080, "JPEG"), (640, 480, "PNG"))
_GOAL: Final = 2.0
_GOAL_WITH_FEATURES: Final = 1.3  # the model takes longer than decoding, on both sides
MAX_PIXELS: Final = 25_000_000


def measure(rounds: int, seconds: int, folder: Path | None, model: Model = SHIPPED) -> list[Line]:
    """A line for each kind of image: requests per second, and the service's ÷ the naive application's.

    Args:
        rounds: each runs both sides.
        seconds: duration of a run.
        folder: of photographs; None: a computed one.
        model: what both sides serve.

    Raises:
        BenchmarkError: a server does not start, or gave a wrong answer.
    """
    golden, goal = model.golden_image, _GOAL if model == SHIPPED else _GOAL_WITH_FEATURES
    lines = []
    with contextlib.ExitStack() as running:
        ours = running.enter_context(started(service({}, model), golden))
        naive = running.enter_context(started(reference("naive", model=model), golden))
        for width, height, file_format in _CASES:
            images = [encoded(image, file_format) for image in photographs(width, height, folder)]
            script = post_script(PATH, images, f"image/{file_format.lower()}")
            check_ours = check_script([expected(image, model) for image in images])
            check_naive = check_script([_mse(ask(naive.port, image)) for image in images])

            def load(url: str, checked: str) -> Load:
                return run_wrk(url, checked, _CONNECTIONS, seconds)

            sides = (ours.url, script + check_ours), (naive.url, script + check_naive)
            mine, theirs = ((lambda side=side: load(*side)) for side in sides)
            name = f"{width} × {height} {file_format}"
            pairs = [(one.requests_per_s, other.requests_per_s) for one, other in alternate(name, mine, theirs, rounds)]
            lines.append(ratio(f"{name}: requests/s ÷ a naive FastAPI app, {_CONNECTIONS} connections", pairs, goal))
    return lines


def load_network(model: Model) -> tuple[torch.jit.ScriptModule, InputSpec]:
    """The network of a model and the specification of its input."""
    network = torch.jit.load(str(model.version / "model.pt"))  # type: ignore[no-untyped-call]
    return network, InputSpec.model_validate(model.manifest["input"])


def expected(image: bytes, model: Model) -> float:
    """The mean squared error that the service must answer."""
    network, spec = load_network(model)
    decoded = decode(image, spec, max_pixels=MAX_PIXELS)
    with torch.inference_mode():
        _, mse, *_ = network(decoded.tensor[None])
    return float(mse)


def _mse(answer: bytes) -> float:
    return float(json.loads(answer)["results"][0]["mse"])
