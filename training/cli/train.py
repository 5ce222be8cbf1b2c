"""``python -m training --data … --name …``: a training run with progress output."""

import argparse
from pathlib import Path

import torch

from app.inference.bundles.store import ModelStore
from app.inference.errors import InferenceError
from training.cli.interrupts import exit_on_interrupt
from training.cli.options import run_of
from training.cli.parser import command_line, console
from training.errors import TrainingError


def run(options: argparse.Namespace) -> None:
    """Trains and publishes.

    Raises:
        TrainingError, InferenceError: the run failed; the text gives the reason.
        KeyboardInterrupt: the run was interrupted; the text says whether something was published.
    """
    with exit_on_interrupt():
        # Imported here so that help and usage errors are fast.
        from training.cli.progress import Display  # noqa: PLC0415
        from training.pipeline import train  # noqa: PLC0415

        settings = run_of(options)
        before = _current(settings.store, settings.name)
        display = Display(settings, console())
    try:
        with display:
            display.result(train(settings, display), before)
    except KeyboardInterrupt:
        check = f"{command_line('list', store=settings.store)} shows what was published"
        raise KeyboardInterrupt(check if display.publishing else "nothing was published") from None
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise TrainingError(
            "not enough memory for images of this size: choose a smaller --size or --batch-size, or --recipe conv"
        ) from error


def _current(store: Path, name: str) -> str | None:
    try:
        return ModelStore(store).current(name)
    except InferenceError:
        return None


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
