"""The store of versions: data only, no code.

::

    <root>/<name>/CURRENT              one line: the version that is served
    <root>/<name>/<version>/           a bundle; once it has its name, only a signature can still be put to it

Publishing writes a version beside, flushes it, renames it into place and replaces CURRENT last, so that a
crash at any instant leaves the store serving what it served before. Activating replaces CURRENT alone.
"""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.inference.bundles.bundle import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Bundle,
    content_to_sign,
    load_bundle,
    read_manifest,
    verified_files,
)
from app.inference.bundles.manifest import NAME_PATTERN, VERSION_PATTERN, Manifest
from app.inference.errors import BundleRejected, StoreNotWritable, UnknownFile, UnknownModel, UnknownVersion

if TYPE_CHECKING:
    from app.inference.bundles.signing import SigningKey, TrustedKeys

CURRENT_FILE: Final = "CURRENT"
_LOCK_FILE: Final = ".lock"
_INCOMING_PREFIX: Final = ".publishing-"
_MAX_CURRENT_BYTES: Final = 256


def new_version() -> str:
    """A version name: UTC time, sortable, and six random digits against two publishers in one second."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


class ModelStore:
    """A folder of models, each a folder of versions.

    Args:
        root: the store's folder; it need not exist yet.
        trusted: whose signature every version that is read must carry; None: signatures are not looked at.
    """

    def __init__(self, root: Path, trusted: "TrustedKeys | None" = None) -> None:
        self.root = root
        self._trusted = trusted

    def names(self) -> list[str]:
        """Models that have a CURRENT, in alphabetical order. An absent or unreadable store has none."""
        return [name for name in self._folders() if os.path.lexists(self.root / name / CURRENT_FILE)]

    def versions(self, name: str) -> list[str]:
        """All versions of a model, oldest first where their names are of :func:`new_version`.

        Raises:
            UnknownModel: there is no such model.
            BundleRejected: its folder cannot be read.
        """
        if not re.fullmatch(NAME_PATTERN, name):
            raise UnknownModel(f"there is no model named {name!r}")
        try:
            entries = list((self.root / name).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            raise UnknownModel(f"there is no model named {name!r}") from None
        except OSError as error:
            raise BundleRejected(f"{name} cannot be read: {error.strerror}") from error
        return sorted(path.name for path in entries if re.fullmatch(VERSION_PATTERN, path.name) and path.is_dir())

    def contents(self) -> dict[str, list[str]]:
        """Everything that was published: models with a CURRENT or a version, each with its versions."""
        served = set(self.names())
        found = {name: self.versions(name) for name in self._folders()}
        return {name: versions for name, versions in found.items() if versions or name in served}

    def _folders(self) -> list[str]:
        try:
            names = (entry.name for entry in self.root.iterdir() if entry.is_dir())
            return sorted(name for name in names if re.fullmatch(NAME_PATTERN, name))
        except OSError:
            return []

    def current(self, name: str) -> str:
        """The version that CURRENT names.

        Raises:
            UnknownModel: there is no such model.
            BundleRejected: CURRENT does not hold the name of a version.
        """
        if not re.fullmatch(NAME_PATTERN, name):
            raise UnknownModel(f"there is no model named {name!r}")
        try:
            with (self.root / name / CURRENT_FILE).open("rb") as file:
                text = file.read(_MAX_CURRENT_BYTES).decode("ascii", "replace").strip()
            known = re.fullmatch(VERSION_PATTERN, text) and (self.root / name / text).is_dir()
        except (FileNotFoundError, NotADirectoryError):
            raise UnknownModel(f"there is no model named {name!r}") from None
        except OSError as error:
            raise BundleRejected(f"{name}/{CURRENT_FILE} cannot be read: {error.strerror}") from error
        if not re.fullmatch(VERSION_PATTERN, text):
            raise BundleRejected(f"{name}/{CURRENT_FILE} does not hold the name of a version: {text[:80]!r}")
        if not known:
            raise BundleRejected(f"{name}/{CURRENT_FILE} names version {text!r}, which is not in the store")
        return text

    def manifest(self, name: str, version: str | None = None) -> Manifest:
        """The card of a version, by default the current one; signature and seal checked.

        Raises:
            UnknownModel, BundleRejected: as :meth:`current` and ``read_manifest``.
        """
        directory = self.root / name / (version or self.current(name))
        with _naming(directory):
            return read_manifest(directory, self._trusted)

    def load(self, name: str, version: str) -> Bundle:
        """Verifies and loads one version.

        Raises:
            BundleRejected: it fails verification; the text names version, file and reason.
        """
        directory = self.root / name / version
        with _naming(directory):
            return load_bundle(directory, self._trusted)

    def file(self, manifest: Manifest, name: str) -> bytes:
        """One file of a version, as the manifest knows it.

        Raises:
            UnknownFile: the manifest lists none of that name.
            BundleRejected: it is not what the manifest says; the text names version, file and reason.
        """
        if name not in manifest.files:
            raise UnknownFile(f"{manifest.name}/{manifest.version} has no file {name[:80]!r}")
        directory = self.root / manifest.name / manifest.version
        with _naming(directory):
            return verified_files(directory, {name: manifest.files[name]})[name]

    def prepare(self, name: str) -> None:
        """Makes sure that a model can be published, before hours are spent on it.

        Raises:
            StoreNotWritable: the file system refuses.
        """
        model = self.root / name
        with _refusing(model):
            model.mkdir(parents=True, exist_ok=True)
            (model / _LOCK_FILE).open("w").close()

    def publish(self, manifest: Manifest, files: Mapping[str, bytes], key: "SigningKey | None" = None) -> Path:
        """Adds a version and makes it current, atomically. Publishers of one model take turns.

        Args:
            manifest: its ``files`` must describe exactly ``files``.
            files: relative name → content; without the manifest.
            key: signs the version, before anyone can see it.

        Returns:
            The version's folder.

        Raises:
            StoreNotWritable: the file system refused; what was served before still is.
            BundleRejected: what was written does not verify, so it was not made current.
        """
        if set(files) != set(manifest.files):
            raise ValueError("the manifest does not list exactly the files that were given")
        model = self.root / manifest.name
        with _refusing(model):
            model.mkdir(parents=True, exist_ok=True)
            with _locked(model):
                incoming = model / f"{_INCOMING_PREFIX}{manifest.version}"
                sealed = manifest.to_bytes()
                signature = {SIGNATURE_FILE: key.sign(sealed)} if key else {}
                for name, content in {**files, **signature, MANIFEST_FILE: sealed}.items():
                    _write_flushed(incoming / name, content)
                for folder in {incoming, *(path.parent for path in map(incoming.joinpath, files))}:
                    _flush_folder(folder)
                version = model / manifest.version
                incoming.rename(version)
                _flush_folder(model)
                self._verify_fresh(manifest)
                self._point_current(model, manifest.version)
        return version

    def sign(self, name: str, version: str, key: "SigningKey") -> None:
        """Signs a version that is in the store, atomically; a signature that it has is replaced.

        Every file is compared with the manifest, and the model is not run: what comes from elsewhere is code.

        Raises:
            UnknownModel, UnknownVersion: there is no such model, or it has no such version.
            BundleRejected: a file is not what the manifest says; nothing was signed.
            StoreNotWritable: the file system refused; the version is as it was.
        """
        if version not in self.versions(name):
            raise UnknownVersion(f"{name} has no version {version!r}")
        model = self.root / name
        with _refusing(model), _locked(model):
            with _naming(model / version):
                signature = key.sign(content_to_sign(model / version))
            _replace(model / version / SIGNATURE_FILE, signature, beside=model)

    def activate(self, name: str, version: str) -> None:
        """Makes a version that is in the store current: a rollback, or its undoing. Atomic, as publishing is.

        Raises:
            UnknownModel, UnknownVersion: there is no such model, or it has no such version.
            BundleRejected: the version fails verification; CURRENT was not touched.
            StoreNotWritable: the file system refused; what was served before still is.
        """
        if version not in self.versions(name):
            raise UnknownVersion(f"{name} has no version {version!r}")
        model = self.root / name
        with _refusing(model), _locked(model):
            self.load(name, version)
            self._point_current(model, version)

    def _verify_fresh(self, manifest: Manifest) -> None:
        try:
            self.load(manifest.name, manifest.version)
        except BundleRejected:
            shutil.rmtree(self.root / manifest.name / manifest.version)
            raise

    def _point_current(self, model: Path, version: str) -> None:
        _replace(model / CURRENT_FILE, f"{version}\n".encode(), beside=model)


@contextmanager
def _naming(directory: Path) -> Iterator[None]:
    """Puts model and version in front of what a bundle is refused for."""
    try:
        yield
    except BundleRejected as error:
        raise BundleRejected(f"{directory.parent.name}/{directory.name}: {error}") from error


@contextmanager
def _refusing(model: Path) -> Iterator[None]:
    """Turns what the file system says into one line."""
    try:
        yield
    except OSError as error:
        raise StoreNotWritable(f"cannot write to {model}: {error.strerror}; the store is as it was") from error


@contextmanager
def _locked(model: Path) -> Iterator[None]:
    """One writer at a time; the kernel lets go of the lock when its holder dies, and the next clears up after it."""
    with (model / _LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_abandoned(model)
        yield


def _remove_abandoned(model: Path) -> None:
    """Clears what killed writers left; safe, since we hold the lock."""
    for path in model.glob(f"{_INCOMING_PREFIX}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_flushed(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, content: bytes, *, beside: Path) -> None:
    """The old content or the new one is there, whatever happens; what is half written lies in ``beside``."""
    fresh = beside / f"{_INCOMING_PREFIX}{path.name}"
    _write_flushed(fresh, content)
    fresh.replace(path)
    _flush_folder(path.parent)


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
