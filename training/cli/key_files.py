"""Key files: a private key that only its owner can read, beside it the public one that services are told."""

import argparse
import os
from pathlib import Path

from app.inference.bundles.signing import SigningKey, TrustedKeys, parse_public_keys
from app.inference.errors import UnusableKey
from training.errors import TrainingError


def generate(path: Path) -> SigningKey:
    """Makes a key pair: ``path``, mode 0600, and ``path`` with ``.pub`` added.

    Raises:
        TrainingError: one of the files is there already; nothing is ever overwritten.
    """
    key, public = SigningKey.generate(), public_path(path)
    for wanted in (path, public):
        if wanted.exists():
            raise TrainingError(f"{wanted} is there already; a key is never overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.to_pem())
    public.write_bytes(key.public_pem())
    return key


def public_path(path: Path) -> Path:
    """Where the public half of a key file lies."""
    return path.with_name(f"{path.name}.pub")


def signing_key(text: str) -> SigningKey:
    """An argparse type: a private key, by its file."""
    try:
        return SigningKey.from_pem(Path(text).read_bytes())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be read: {error.strerror}") from error
    except UnusableKey as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used: {error}") from error


def trusted_keys(text: str) -> TrustedKeys:
    """An argparse type: public keys, as a file or a comma list."""
    try:
        path = Path(text)
        return TrustedKeys(parse_public_keys(path.read_text("utf-8") if path.is_file() else text))
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be read") from error
    except UnusableKey as error:
        raise argparse.ArgumentTypeError(f"it cannot be used: {error}") from error
