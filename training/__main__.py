"""The command line: ``python -m training --data mnist --normal 5 --name mnist-5``, and commands for the model store."""

import io
import os
import sys

from app.inference.errors import InferenceError
from training.cli.interrupts import exit_on_interrupt
from training.errors import TrainingError


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, or 1 or 130 (Ctrl-C) with one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # in a non-UTF-8 locale, '≤' becomes '?'
    try:
        _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt as interrupt:
        print("; ".join(["stopped", *map(str, interrupt.args)]), file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader closed the pipe; discard what is buffered
        return 1
    except (TrainingError, InferenceError, ModuleNotFoundError, OSError) as error:
        print(f"error: {' '.join(_message(error).split())}", file=sys.stderr)
        return 1
    return 0


def _run(arguments: list[str]) -> None:
    with exit_on_interrupt():  # the imports take seconds
        from training.cli import export, options, recalibrate, retrain, sign, store, train  # noqa: PLC0415

        parser = options.training_parser(run=train.run)
        commands = parser.add_commands("commands for the model store")
        for group in (store, sign, recalibrate, retrain, export):
            group.add_to(commands)
        parsed = parser.parse_args(arguments)
    parsed.run(parsed)


def _message(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; install the packages for training: pip install '.[training]'"
    if isinstance(error, OSError):
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else str(error)
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
