"""``python -m training keygen | sign``: signatures on versions."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli import key_files
from training.cli.parser import StoreCommand, add_help, store_of

if TYPE_CHECKING:
    from training.cli.parser import Commands


def add_to(commands: "Commands") -> None:
    """Registers the commands."""
    parser = commands.add_parser(
        "keygen",
        usage="%(prog)s FILE",
        help="create a key to sign versions with",
        description="Creates an Ed25519 key to sign versions with. FILE is the private key: keep it\n"
        "away from the store and from the service. FILE.pub is the public one, for\n"
        "ANOMALY_TRUSTED_KEYS.",
    )
    parser.set_defaults(run=keygen)
    what = parser.add_argument_group("what")
    what.add_argument("file", metavar="FILE", type=Path, help="path of the private key; never overwritten")
    add_help(what)
    signing = StoreCommand(
        commands,
        "sign",
        ["NAME", "[VERSION]"],
        summary="sign a version",
        description="Signs a version, by default the current one: its name, its version, every file.\n"
        "Files are compared with the manifest first; the model is not run. A service\n"
        "with ANOMALY_TRUSTED_KEYS loads only signed versions.",
        run=sign,
        more=["--key FILE"],
    )
    signing.options.add_argument(
        "--key", metavar="FILE", type=key_files.signing_key, required=True, help="private key, as keygen creates it"
    )


def keygen(options: argparse.Namespace) -> None:
    """Creates a pair of keys.

    Raises:
        TrainingError: the file exists.
    """
    path = options.file
    key = key_files.generate(path)
    public = key_files.public_path(path)
    print(f"private  {path}  (sign with it: --key {path})")
    print(f"public   {public}  (trust it: ANOMALY_TRUSTED_KEYS={public})")
    print(f"         {key.public}")


def sign(options: argparse.Namespace) -> None:
    """Signs a version.

    Raises:
        InferenceError: the version does not exist, or a file does not match the manifest.
    """
    store = store_of(options)
    version = options.version or store.current(options.name)
    store.sign(options.name, version, options.key)
    print(f"{options.name} {version} is signed with key {options.key.id}")
