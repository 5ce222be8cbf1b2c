"""The command line: ``python -m training --data mnist --normal 5 --name mnist-5``, and the commands of the store."""

import io
import os
import sys

from app.inference.errors import InferenceError
from training.cli.interrupts import exit_on_interrupt
from training.errors import TrainingError


def main(arguments: list[str] | None = None) -> int:
    """Does what the words say; returns the exit status: 0, or 1 with one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an old locale shows '?' for '≤' rather than fail
    try:
        return _do(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt as interrupt:
        print("; ".join(["stopped", *map(str, interrupt.args)]), file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader left; nothing more to say to it
        return 1
    except (TrainingError, InferenceError, ModuleNotFoundError, OSError) as error:
        print(f"error: {' '.join(_in_words(error).split())}", file=sys.stderr)
        return 1


def _do(words: list[str]) -> int:
    with exit_on_interrupt():  # the seconds that torch takes to be read
        from training.cli import recalibrate, sign, store, train  # noqa: PLC0415
        from training.cli.parser import STORE_COMMANDS  # noqa: PLC0415
    if not words or words[0] not in STORE_COMMANDS:
        return train.run(words)
    commands = {
        "list": store.list_all,
        "show": store.show,
        "activate": store.activate,
        "verify": store.verify,
        "keygen": sign.keygen,
        "sign": sign.sign,
        "recalibrate": recalibrate.run,
    }
    commands[words[0]](words[1:])
    return 0


def _in_words(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; training needs more than serving does: pip install '.[training]'"
    if isinstance(error, OSError):
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else str(error)
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
