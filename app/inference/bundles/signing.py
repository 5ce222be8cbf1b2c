"""Signatures of versions: Ed25519 (RFC 8032) over the manifest.

Checksums do not stop an attacker who can write to the store, because the attacker can replace them too. A signature
requires the private key, which neither the store nor the service has. The manifest contains the model's name, the
version and the SHA-256 of every file, so one signature covers them all: neither another file nor the signed manifest of
another model is accepted in their place.

``manifest.sig`` is one line, ``ed25519 KEY SIGNATURE``: the id of the key, and the base64 signature of ``_DOMAIN``
followed by the exact bytes of ``manifest.json``.

Import this module only where signatures are used: ``cryptography`` takes 10 MB of memory.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

from app.inference.errors import BundleRejected, UnusableKey

# Domain separation: a signature that was made for another purpose is not valid here.
_DOMAIN: Final = b"anomaly-service manifest 1\n"
_ALGORITHM: Final = "ed25519"
_PEM_BOUNDARY: Final = "-----"
_KEY_ID: Final = re.compile("[0-9a-f]{16}")


def _key_id(key: Ed25519PublicKey) -> str:
    """The id of a key: the first 64 bits of its SHA-256, as 16 hex digits."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def parse_public_keys(text: str) -> tuple[str, ...]:
    """Parses public keys.

    Args:
        text: a comma-separated list, or the content of a file with one key per line. A key is PEM, or the base64 line
            of its PEM form alone. ``#`` begins a comment.

    Returns:
        The keys as base64 lines; empty if there are none.

    Raises:
        UnusableKey: an entry is not an Ed25519 public key. It is not quoted, because it may be a private key.
    """
    if "PRIVATE KEY" in text:
        raise UnusableKey(
            "this is a private key; use the public key, and keep the private key where versions are signed"
        )
    lines = [line.partition("#")[0] for line in text.splitlines() if not line.startswith(_PEM_BOUNDARY)]
    keys = tuple(key.strip() for line in lines for key in line.split(",") if key.strip())
    for key in keys:
        _public_key(key)
    return keys


def _public_key(text: str) -> Ed25519PublicKey:
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise UnusableKey("an entry is neither a file nor an Ed25519 public key in the form that keygen writes")
    return key


class TrustedKeys:
    """The public keys whose signatures are accepted.

    Args:
        keys: at least one, as :func:`parse_public_keys` returns them.

    Raises:
        UnusableKey: a key is not an Ed25519 public key, or there are no keys.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise UnusableKey("no public key found")
        self._texts = tuple(keys)
        self._keys = {_key_id(key): key for key in map(_public_key, keys)}

    def with_key(self, key: str) -> "TrustedKeys":
        """These keys and another one."""
        return TrustedKeys((*self._texts, key))

    def require_signature(self, manifest: bytes, signature: bytes) -> None:
        """Verifies a signature.

        Args:
            manifest: content of ``manifest.json``.
            signature: content of ``manifest.sig``.

        Raises:
            BundleRejected: the signature is malformed, made with a key that is not trusted, or of other content.
        """
        try:
            algorithm, key_id, encoded = signature.decode("ascii").split()
            raw = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise BundleRejected("manifest.sig is not a valid signature: damaged or truncated") from error
        if algorithm != _ALGORITHM:
            raise BundleRejected(f"manifest.sig uses another algorithm; this program supports {_ALGORITHM}")
        if not _KEY_ID.fullmatch(key_id):
            raise BundleRejected("manifest.sig is not a valid signature: it has no id of a key")
        if (key := self._keys.get(key_id)) is None:
            raise BundleRejected(f"manifest.sig was made with key {key_id!r}, which is not trusted")
        try:
            key.verify(raw, _DOMAIN + manifest)
        except InvalidSignature as error:
            raise BundleRejected("manifest.json does not match its signature in manifest.sig") from error


class SigningKey:
    """A private key for signing versions.

    Args:
        key: an Ed25519 key.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> Self:
        """Generates a key from the operating system's random numbers."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Reads a PKCS #8 file (RFC 5208), as :meth:`to_pem` and OpenSSL write it.

        Raises:
            UnusableKey: the file is not a private key in PEM format, is encrypted, or its key is not Ed25519.
        """
        try:
            key = load_pem_private_key(pem, password=None)
        except TypeError as error:
            raise UnusableKey("the key is encrypted; decrypt it first (openssl pkey)") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UnusableKey("not a private key in PEM format") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UnusableKey("the key is not Ed25519")
        return cls(key)

    @property
    def id(self) -> str:
        """The key's id in ``manifest.sig``, 16 hex digits."""
        return _key_id(self._key.public_key())

    @property
    def public(self) -> str:
        """The public key as one line of base64, the form that :func:`parse_public_keys` returns."""
        return base64.b64encode(
            self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ).decode()

    def to_pem(self) -> bytes:
        """The private key as an unencrypted PKCS #8 PEM file."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def public_pem(self) -> bytes:
        """The public key as a PEM file."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, manifest: bytes) -> bytes:
        """The content of ``manifest.sig``, given the content of ``manifest.json``."""
        signature = base64.b64encode(self._key.sign(_DOMAIN + manifest)).decode()
        return f"{_ALGORITHM} {self.id} {signature}\n".encode()
