"""What the commands share: errors of one line, a guess at what was meant, help that opens with examples."""

import argparse
import difflib
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from rich.console import Console

PROGRAM: Final = "python -m training"
STORE_COMMANDS: Final = ("list", "show", "activate", "verify", "keygen", "sign", "recalibrate")
STORE: Final = Path("model_store")

_HELP_WIDTH: Final = 100
_OPTION_WIDTH: Final = 26
_WIDTH_OF_FILES: Final = 160


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; its help shows examples as they were written, and every default.

    Args:
        prog: what was called.
        usage: the first lines of the help.
        description: what follows them.
        words: what may stand in the place of all options.
    """

    def __init__(self, prog: str, *, usage: str, description: str, words: Sequence[str] = ()) -> None:
        super().__init__(prog=prog, usage=usage, description=description, formatter_class=_Formatter, add_help=False)
        self._words = words

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2."""
        self.exit(2, f"error: {' '.join(message.split())} (see {self.prog} --help)\n")

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """As ``parse_args``, with a guess at what an unknown option was meant to be."""
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            if unknown[0] in self._words:
                self.error(f"{unknown[0]!r} must be the first word")
            meant = did_you_mean(unknown[0].split("=")[0], [*self._words, *self._option_string_actions])
            self.error(f"{unknown[0]!r} is not understood{meant}")
        return options


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_OPTION_WIDTH)
        self._width = min(self._width, _HELP_WIDTH)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or "(default: " in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def add_help(group: argparse._ActionsContainer) -> None:
    """The last option, as people look for it."""
    group.add_argument("-h", "--help", action="help", help="show this and stop")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A guess to append to an error; empty where nothing is close."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_of(what: str, known: Iterable[str]) -> Callable[[str], str]:
    """An argparse type: one of some names."""
    names = list(known)

    def check(text: str) -> str:
        if text not in names:
            meant = did_you_mean(text, names) or f"; there are {', '.join(names)}"
            raise argparse.ArgumentTypeError(f"there is no {what} {text!r}{meant}")
        return text

    return check


def console() -> Console:
    """Standard output: as wide as the terminal; in files and pipes wide enough to keep rows whole."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_FILES)


def command(*words: str, store: Path) -> str:
    """A command to copy, with the store where it is not the usual one."""
    return f"{PROGRAM} {shlex.join([*words, *([] if store == STORE else ['--store', str(store)])])}"
