"""Who made a version: an Ed25519 signature (RFC 8032) over its manifest.

Checksums beside a file do not stop someone who can write to the store, for they can be written too. A signature can
only be made by whoever has the private key, which the store and the service never see. The manifest holds the model's
name, the version and the SHA-256 of every file, so that one signature binds them all: neither another file nor the
signed manifest of another model passes in their place.

``manifest.sig`` is one line, ``ed25519 KEY SIGNATURE``: which key it was, for people, and the signature in base64,
made over ``_DOMAIN`` and the exact bytes of ``manifest.json``.

Only those who ask for signatures import this module: ``cryptography`` takes 10 MB.
"""

import base64
import binascii
import hashlib
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

_DOMAIN: Final = b"anomaly-service manifest 1\n"  # so that no signature made for another purpose fits
_ALGORITHM: Final = "ed25519"
_ARMOUR: Final = "-----"


def _key_id(key: Ed25519PublicKey) -> str:
    """A short name of a key: the first 64 bits of its SHA-256."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def parse_public_keys(text: str) -> tuple[str, ...]:
    """The keys of a comma list or a file, one a line: PEM, or the line of base64 that PEM puts between its armour.

    Raises:
        UnusableKey: something there is no Ed25519 public key; it is not quoted, for it may be a private one.
    """
    if "PRIVATE KEY" in text:
        raise UnusableKey("that is a private key; it belongs to those who sign, the public one belongs here")
    lines = [line.partition("#")[0] for line in text.splitlines() if not line.startswith(_ARMOUR)]
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
        raise UnusableKey("it holds what is neither a file nor an Ed25519 public key as keygen writes it")
    return key


class TrustedKeys:
    """The public keys whose signatures count.

    Args:
        keys: at least one, as :func:`parse_public_keys` gives them.

    Raises:
        UnusableKey: one is no Ed25519 public key, or there is none.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise UnusableKey("there is no key to trust")
        self._texts = tuple(keys)
        self._keys = {_key_id(key): key for key in map(_public_key, keys)}

    def with_key(self, key: str) -> "TrustedKeys":
        """These keys and another."""
        return TrustedKeys((*self._texts, key))

    def require_signature(self, manifest: bytes, signature: bytes) -> None:
        """Returns if one of the keys has signed.

        Args:
            manifest: content of ``manifest.json``.
            signature: content of ``manifest.sig``.

        Raises:
            BundleRejected: none has, or what was signed is another manifest.
        """
        try:
            algorithm, key_id, encoded = signature.decode("ascii").split()
            raw = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise BundleRejected("manifest.sig is no signature: damaged or cut short") from error
        if algorithm != _ALGORITHM:
            raise BundleRejected(f"manifest.sig is of the kind {algorithm[:20]!r}, this program reads {_ALGORITHM}")
        if (key := self._keys.get(key_id)) is None:
            raise BundleRejected(f"manifest.sig was made with key {key_id[:16]!r}, which is none of the trusted ones")
        try:
            key.verify(raw, _DOMAIN + manifest)
        except InvalidSignature as error:
            raise BundleRejected("manifest.json is not what was signed: manifest.sig does not fit it") from error


class SigningKey:
    """The private key of someone who signs.

    Args:
        key: an Ed25519 key.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> Self:
        """A new key, from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Reads a PKCS 8 file, as :meth:`to_pem` or OpenSSL write it.

        Raises:
            UnusableKey: it is none, it is encrypted, or its key is not Ed25519.
        """
        try:
            key = load_pem_private_key(pem, password=None)
        except TypeError as error:
            raise UnusableKey("it is encrypted; decrypt it first (openssl pkey)") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UnusableKey("it is no private key in PEM") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UnusableKey("its key is not Ed25519")
        return cls(key)

    @property
    def id(self) -> str:
        """What ``manifest.sig`` calls the key."""
        return _key_id(self._key.public_key())

    @property
    def public(self) -> str:
        """The public key, as services are told it: one line."""
        return base64.b64encode(
            self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ).decode()

    def to_pem(self) -> bytes:
        """The private key, PKCS 8, unencrypted."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def public_pem(self) -> bytes:
        """The public key as a PEM file."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, manifest: bytes) -> bytes:
        """The content of ``manifest.sig`` for the content of ``manifest.json``."""
        signature = base64.b64encode(self._key.sign(_DOMAIN + manifest)).decode()
        return f"{_ALGORITHM} {self.id} {signature}\n".encode()
