"""Key files: a private key with mode 0600, and next to it the public key for the service."""

import argparse
import os
from pathlib import Path

from app.inference.bundles.signing import SigningKey, TrustedKeys, parse_public_keys
from app.inference.errors import UnusableKey
from training.errors import TrainingError


def generate(path: Path) -> SigningKey:
    """Creates a key pair: the private key in ``path``, the public key in ``path`` with ``.pub`` appended.

    Raises:
        TrainingError: one of the files exists already; it is not overwritten.
    """
    key, public = SigningKey.generate(), public_path(path)
    for file in (path, public):
        if file.exists():
            raise TrainingError(f"{file} already exists; keys are never overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        output.write(key.to_pem())
    public.write_bytes(key.public_pem())
    return key


def public_path(path: Path) -> Path:
    """The path of the public key that belongs to a private key."""
    return path.with_name(f"{path.name}.pub")


def signing_key(text: str) -> SigningKey:
    """An argparse type: the file of a private key."""
    try:
        return SigningKey.from_pem(Path(text).read_bytes())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be read: {error.strerror}") from error
    except UnusableKey as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used: {error}") from error


def trusted_keys(text: str) -> TrustedKeys:
    """An argparse type: public keys, as a file or a comma-separated list."""
    try:
        path = Path(text)
        return TrustedKeys(parse_public_keys(path.read_text("utf-8") if path.is_file() else text))
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be read") from error
    except UnusableKey as error:
        raise argparse.ArgumentTypeError(f"the keys cannot be used: {error}") from error
