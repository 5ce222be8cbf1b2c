"""``python -m training keygen | sign``: signatures of versions."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from app.command_line import add_help
from training.cli import key_files
from training.cli.parser import add_store_command, store_of

if TYPE_CHECKING:
    from app.command_line import Commands


def add_to(commands: "Commands") -> None:
    """Adds the commands."""
    parser = commands.add_parser(
        "keygen",
        usage="%(prog)s FILE",
        help="create a key pair to sign versions with",
        description="Creates an Ed25519 key pair to sign versions with. FILE is the private key: keep\n"
        "it away from the store and from the service. FILE.pub is the public key, for\n"
        "ANOMALY_TRUSTED_KEYS.",
    )
    parser.set_defaults(run=keygen)
    arguments = parser.add_argument_group("arguments")
    arguments.add_argument("file", metavar="FILE", type=Path, help="path of the private key; never overwritten")
    add_help(parser.add_argument_group("options"))
    add_store_command(
        commands,
        "sign",
        ["NAME", "[VERSION]"],
        summary="sign a version",
        description="Signs the manifest of a version, by default of the current one. The manifest\n"
        "contains name, version and a checksum of every file; the files are compared with\n"
        "it first, but the model is not run. A service with ANOMALY_TRUSTED_KEYS loads\n"
        "signed versions only.",
        run=sign,
        add_options=_add_key,
        required_options=["--key FILE"],
    )


def _add_key(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--key", metavar="FILE", type=key_files.signing_key, required=True, help="private key, as keygen creates it"
    )


def keygen(options: argparse.Namespace) -> None:
    """Creates a key pair.

    Raises:
        TrainingError: one of the files exists already.
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
