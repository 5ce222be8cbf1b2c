"""What the commands of the store are told, and a guess at what was meant where it is unknown."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.inference.bundles.signing import TrustedKeys
from app.inference.bundles.store import ModelStore
from app.inference.errors import UnknownModel, UnknownVersion
from training.cli.key_files import trusted_keys
from training.cli.parser import PROGRAM, STORE, Parser, add_help, did_you_mean
from training.errors import TrainingError

_ARGUMENTS: Final = {"NAME": "a model", "VERSION": "one of its versions"}


class StoreParser(Parser):
    """The words of one command.

    Args:
        word: the command.
        names: NAME and VERSION, in brackets where they may be left out.
        description: what it does.
        more: options that the usage line shall name.

    Attributes:
        how: the group that further options belong to.
    """

    def __init__(self, word: str, names: Sequence[str], description: str, *more: str) -> None:
        usage = " ".join(["%(prog)s", *names, *more, "[--store FOLDER]"])
        super().__init__(f"{PROGRAM} {word}", usage=usage, description=description)
        what = self.add_argument_group("what")
        for name in names:
            plain = name.strip("[]")
            nargs = None if name == plain else "?"
            what.add_argument(plain.lower(), metavar=plain, nargs=nargs, help=_ARGUMENTS[plain])
        self.how = self.add_argument_group("options")
        self.how.add_argument("--store", metavar="FOLDER", type=Path, default=STORE, help="folder of the model store")

    def add_trusted_keys(self) -> None:
        """Lets signatures be asked for."""
        self.how.add_argument(
            "--trusted-keys",
            metavar="KEYS",
            type=trusted_keys,
            help="public keys, as a file or a comma list: refuse versions that none of them has signed",
        )

    def read(self, arguments: list[str]) -> argparse.Namespace:
        """What was asked for.

        Raises:
            TrainingError: there is no such store.
            UnknownModel, UnknownVersion: it has no such model or version.
        """
        add_help(self.how)
        options = self.parse(arguments)
        if not options.store.is_dir():
            raise TrainingError(f"there is no store {options.store}")
        if name := getattr(options, "name", None):
            _check_known(ModelStore(options.store), name, getattr(options, "version", None))
        return options


def store_of(options: argparse.Namespace) -> ModelStore:
    """The store that was named; where keys are trusted, what they have not signed is refused."""
    trusted: TrustedKeys | None = getattr(options, "trusted_keys", None)
    return ModelStore(options.store, trusted)


def _check_known(store: ModelStore, name: str, version: str | None) -> None:
    known = store.contents()
    if name not in known:
        raise UnknownModel(f"{store.root} has no model {name!r}{did_you_mean(name, known)}")
    if version is not None and version not in known[name]:
        raise UnknownVersion(f"{name} has no version {version!r}{did_you_mean(version, known[name])}")
