"""The command lines of this project: one-line errors with suggestions, and help that shows every default."""

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from app.suggestions import did_you_mean

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]

_HELP_WIDTH: Final = 100
_OPTION_WIDTH: Final = 26


class Parser(argparse.ArgumentParser):
    """Reports errors in one line with suggestions; its help text shows every default."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=_Formatter, add_help=False)
        self._commands: Commands | None = None

    def add_commands(self, title: str) -> "Commands":
        """Adds a group of commands. A command must be the first argument, without options of the parser."""
        self._commands = self.add_subparsers(title=title, metavar="COMMAND", dest="command", prog=self.prog)
        return self._commands

    def error(self, message: str) -> NoReturn:
        """Prints an error and ends the process with status 2."""
        self.exit(2, f"error: {' '.join(message.split())} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses as argparse does, but unknown arguments are errors with a suggestion."""
        if self._commands and not {*args[:1]} & {*self._commands.choices}:
            self._reject_unknown_options(args)  # argparse would take the value of such an option for a command
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._reject(unknown[0], self._option_string_actions)
        if self._commands and options.command and args[:1] != [options.command]:
            self.error(f"{options.command!r} must be the first word")
        return options, unknown

    def _reject_unknown_options(self, words: Sequence[str]) -> None:
        for word in words:
            option = word.split("=", maxsplit=1)[0]
            if word.startswith("--") and not any(known.startswith(option) for known in self._option_string_actions):
                self._reject(word, self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action is self._commands and value not in self._commands.choices:
            self._reject(value, self._commands.choices)
        super()._check_value(action, value)

    def _reject(self, word: str, known: Iterable[str]) -> NoReturn:
        self.error(f"{word!r} is not understood{did_you_mean(word.split('=', maxsplit=1)[0], known)}")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_OPTION_WIDTH)
        self._width = min(self._width, _HELP_WIDTH)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or "(default: " in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def add_help(group: argparse._ActionsContainer) -> None:
    """Adds ``--help`` as the last option."""
    group.add_argument("-h", "--help", action="help", help="show this help and exit")
