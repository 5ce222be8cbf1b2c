"""``python -m training keygen | sign``: who made a version."""

from pathlib import Path

from training.cli import key_files as keys
from training.cli.parser import PROGRAM, Parser, add_help
from training.cli.store_parser import StoreParser, store_of


def keygen(arguments: list[str]) -> None:
    """Makes a pair of keys.

    Raises:
        TrainingError: there is such a file already.
    """
    parser = Parser(
        f"{PROGRAM} keygen",
        usage="%(prog)s FILE",
        description="Makes an Ed25519 key to sign versions with. FILE is the private key: keep it\n"
        "away from the store and from the service. FILE.pub is the public one, for\n"
        "ANOMALY_TRUSTED_KEYS.",
    )
    what = parser.add_argument_group("what")
    what.add_argument("file", metavar="FILE", type=Path, help="where the private key shall lie; never overwritten")
    add_help(what)
    path = parser.parse(arguments).file
    key = keys.generate(path)
    print(f"private  {path}  (sign with it: --key {path})")
    print(f"public   {keys.public_path(path)}  (trust it: ANOMALY_TRUSTED_KEYS={keys.public_path(path)})")
    print(f"         {key.public}")


def sign(arguments: list[str]) -> None:
    """Signs a version.

    Raises:
        TrainingError, InferenceError: there is no such version, a file is not what the manifest says, …
    """
    parser = StoreParser(
        "sign",
        ["NAME", "[VERSION]"],
        "Signs a version, by default the current one: its name, its version, every file.\n"
        "Files are compared with the manifest first; the model is not run. A service\n"
        "with ANOMALY_TRUSTED_KEYS loads nothing else, and takes it up in about a second.",
        "--key FILE",
    )
    parser.how.add_argument(
        "--key", metavar="FILE", type=keys.signing_key, required=True, help="a private key, as keygen makes it"
    )
    options = parser.read(arguments)
    store = store_of(options)
    version = options.version or store.current(options.name)
    store.sign(options.name, version, options.key)
    print(f"{options.name} {version} is signed with key {options.key.id}")
