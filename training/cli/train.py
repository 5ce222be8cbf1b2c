"""``python -m training --data … --name …``: one run, shown while it goes on."""

from pathlib import Path

import torch

from app.inference.bundles.store import ModelStore
from app.inference.errors import InferenceError
from training.cli.interrupts import exit_on_interrupt
from training.cli.options import parse
from training.cli.parser import command, console
from training.errors import TrainingError


def run(arguments: list[str]) -> int:
    """Trains and publishes; returns the exit status.

    Raises:
        TrainingError, InferenceError: the run is refused; the text says why.
        KeyboardInterrupt: it was stopped; the text says what became of the store.
    """
    with exit_on_interrupt():
        wanted = parse(arguments)
        # Seconds that help and usage errors need not wait.
        from training.cli.progress import Display  # noqa: PLC0415
        from training.pipeline import train  # noqa: PLC0415

        before = _current(wanted.store, wanted.name)
        display = Display(wanted, console())
    try:
        with display:
            display.closing(train(wanted, display), before)
    except KeyboardInterrupt:
        seen = f"what was published says {command('list', store=wanted.store)}"
        raise KeyboardInterrupt(seen if display.publishing else "nothing was published") from None
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise TrainingError(
            f"memory is too small for recipe {wanted.recipe.name} on such images: "
            "ask for a smaller --size or --batch-size, or for --recipe conv"
        ) from error
    return 0


def _current(store: Path, name: str) -> str | None:
    try:
        return ModelStore(store).current(name)
    except InferenceError:
        return None


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
