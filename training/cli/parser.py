"""Shared by all commands: commands for the model store, checks of names, and what they print."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.markup import escape

from app.command_line import add_help
from app.inference.bundles.store import ModelStore
from app.inference.errors import UnknownModel, UnknownVersion
from app.suggestions import did_you_mean
from training.cli.key_files import trusted_keys
from training.errors import TrainingError

if TYPE_CHECKING:
    from app.command_line import Commands
    from training.suspects import Suspect

PROGRAM: Final = "python -m training"
DEFAULT_STORE: Final = Path("model_store")

_PIPE_WIDTH: Final = 160
_MAX_LINES: Final = 10
_ARGUMENTS: Final = {"NAME": "a model", "VERSION": "one of its versions"}


def add_store_command(
    commands: "Commands",
    word: str,
    names: Sequence[str],
    *,
    summary: str,
    description: str,
    run: Callable[[argparse.Namespace], None],
    add_options: Callable[[argparse._ArgumentGroup], None] = lambda _: None,
    required_options: Sequence[str] = (),
) -> None:
    """Adds a command that works on the model store and checks that store, model and version exist.

    Args:
        commands: where it is added.
        word: the command.
        names: NAME and VERSION, in brackets if they are optional.
        summary: one line for the list of commands.
        description: the text of its own help.
        run: called with its options.
        add_options: adds further options to the group of ``--store``.
        required_options: options to show in the usage line.
    """
    usage = " ".join(["%(prog)s", *names, *required_options, "[--store FOLDER]"])
    parser = commands.add_parser(word, usage=usage, help=summary, description=description)
    parser.set_defaults(run=lambda options: run(_checked(options)))
    arguments = parser.add_argument_group("arguments")
    for name in names:
        plain = name.strip("[]")
        nargs = None if name == plain else "?"
        arguments.add_argument(plain.lower(), metavar=plain, nargs=nargs, help=_ARGUMENTS[plain])
    group = parser.add_argument_group("options")
    group.add_argument("--store", metavar="FOLDER", type=Path, default=DEFAULT_STORE, help="folder of the model store")
    add_options(group)
    add_help(group)


def add_trusted_keys(group: argparse._ActionsContainer) -> None:
    """Adds ``--trusted-keys``."""
    group.add_argument(
        "--trusted-keys",
        metavar="KEYS",
        type=trusted_keys,
        help="public keys, as a file or a comma-separated list: refuse versions that none of them has signed",
    )


def store_of(options: argparse.Namespace) -> ModelStore:
    """The store of a command. With trusted keys, it refuses versions that none of them has signed."""
    return ModelStore(options.store, getattr(options, "trusted_keys", None))


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    """The options, after a check that their store, model and version exist.

    Raises:
        TrainingError: the store does not exist.
        UnknownModel, UnknownVersion: the store has no such model or version.
    """
    if not options.store.is_dir():
        raise TrainingError(f"store not found: {options.store}")
    if name := getattr(options, "name", None):
        known = ModelStore(options.store).contents()
        if name not in known:
            raise UnknownModel(f"{options.store} has no model {name!r}{did_you_mean(name, known)}")
        version = getattr(options, "version", None)
        if version is not None and version not in known[name]:
            raise UnknownVersion(f"{name} has no version {version!r}{did_you_mean(version, known[name])}")
    return options


def one_of(what: str, known: Iterable[str]) -> Callable[[str], str]:
    """An argparse type: one of several names."""
    names = list(known)

    def check(text: str) -> str:
        if text not in names:
            meant = did_you_mean(text, names) or f"; choose from {', '.join(names)}"
            raise argparse.ArgumentTypeError(f"unknown {what} {text!r}{meant}")
        return text

    return check


def console() -> Console:
    """Standard output: as wide as the terminal, or in files and pipes wide enough for whole rows."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def command_line(*words: str, store: Path) -> str:
    """A command line to copy, with ``--store`` unless it is the default store."""
    return f"{PROGRAM} {shlex.join([*words, *([] if store == DEFAULT_STORE else ['--store', str(store)])])}"


def print_suspects(out: Console, suspects: Sequence["Suspect"]) -> None:
    """Prints the normal images with the highest scores, the highest first."""
    out.print(
        "the most suspicious normal images, scored by models that were not fitted on them; if one shows a defect, "
        "leave it out with --exclude FILE:",
        soft_wrap=True,
    )
    print_first(out, "suspicious", [f"{suspect.score:.6g}  {suspect.name}" for suspect in suspects])


def print_notes(out: Console, remarks: Sequence[str], excluded: int) -> None:
    """Prints what was not read, a line each."""
    for remark in [*remarks, *([f"{excluded:,} images excluded"] if excluded else [])]:
        out.print(f"[yellow]note[/] {escape(remark.encode(errors='replace').decode())}", soft_wrap=True)


def print_warnings(out: Console, warnings: Sequence[str]) -> None:
    """Prints why a version should not be trusted, which is published because the user insists."""
    for warning in warnings:
        out.print(f"[bold red]WARNING[/] {escape(warning)}; published because of --force", soft_wrap=True)


def print_first(out: Console, label: str, lines: Sequence[str]) -> None:
    """Prints the first ten lines, each after a coloured label, and the number of the others."""
    for line in lines[:_MAX_LINES]:
        out.print(f"[yellow]{label}[/] {escape(line.encode(errors='replace').decode())}", soft_wrap=True)
    if len(lines) > _MAX_LINES:
        out.print(f"[yellow]{label}[/] {len(lines) - _MAX_LINES:,} more", soft_wrap=True)
