"""The model store: a folder per model, with a folder per version.

::

    <root>/<name>/CURRENT              one line: the version that is served
    <root>/<name>/<version>/           a bundle; only its signature can be added or replaced later

Publishing writes a version to a temporary folder, flushes it to disk, renames it and replaces CURRENT last. After a
crash at any point the store still serves the version that it served before. Activating replaces CURRENT only.
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
from app.suggestions import did_you_mean

if TYPE_CHECKING:
    from app.inference.bundles.signing import SigningKey, TrustedKeys

CURRENT_FILE: Final = "CURRENT"
_LOCK_FILE: Final = ".lock"
_INCOMING_PREFIX: Final = ".publishing-"
_MAX_CURRENT_BYTES: Final = 256
_MAX_NAMES: Final = 10  # that a message lists


def new_version() -> str:
    """A sortable version name: UTC time, and six random hex digits in case of two publications in one second."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


class ModelStore:
    """A folder of models, each a folder of versions. Methods block; they may be called from any thread or process.

    Args:
        root: the store's folder; it need not exist yet.
        trusted: keys, one of which must have signed every version that is read; None: signatures are ignored.
    """

    def __init__(self, root: Path, trusted: "TrustedKeys | None" = None) -> None:
        self.root = root
        self._trusted = trusted

    def names(self) -> list[str]:
        """The models that have a CURRENT file, in alphabetical order. A missing or unreadable store has none."""
        return [name for name in self._folders() if os.path.lexists(self.root / name / CURRENT_FILE)]

    def why_missing(self, name: str) -> str | None:
        """What the store has instead of a model, as a sentence for a person; None if it has the model."""
        names = self.names()
        if name in names:
            return None
        if not self.root.is_dir():
            return f"there is no model store {self.root}, so no model {name!r}"
        if not names:
            return f"the model store {self.root} has no model {name!r}: it is empty"
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        hint = did_you_mean(name, names) or "."
        return f"the model store {self.root} has no model {name!r}{hint} It has {', '.join(names[:_MAX_NAMES])}{more}"

    def versions(self, name: str) -> list[str]:
        """All versions of a model; oldest first, if their names come from :func:`new_version`.

        Raises:
            UnknownModel: there is no such model.
            BundleRejected: its folder cannot be read.
        """
        try:
            entries = list(self._folder(name).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            raise _unknown(name) from None
        except OSError as error:
            raise BundleRejected(f"{name} cannot be read: {error.strerror}") from error
        return sorted(path.name for path in entries if re.fullmatch(VERSION_PATTERN, path.name) and path.is_dir())

    def contents(self) -> dict[str, list[str]]:
        """All models that have a CURRENT file or a version, with their versions."""
        with_current = set(self.names())
        found = {name: self.versions(name) for name in self._folders()}
        return {name: versions for name, versions in found.items() if versions or name in with_current}

    def _folder(self, name: str) -> Path:
        """The folder of a model.

        Raises:
            UnknownModel: the name is not valid; its path could be outside the store.
        """
        if not re.fullmatch(NAME_PATTERN, name):
            raise _unknown(name)
        return self.root / name

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
            BundleRejected: CURRENT cannot be read, or does not name a version in the store.
        """
        folder = self._folder(name)
        try:
            with (folder / CURRENT_FILE).open("rb") as file:
                text = file.read(_MAX_CURRENT_BYTES).decode("ascii", "replace").strip()
            known = re.fullmatch(VERSION_PATTERN, text) and (folder / text).is_dir()
        except (FileNotFoundError, NotADirectoryError):
            raise _unknown(name) from None
        except OSError as error:
            raise BundleRejected(f"{name}/{CURRENT_FILE} cannot be read: {error.strerror}") from error
        if not re.fullmatch(VERSION_PATTERN, text):
            raise BundleRejected(f"{name}/{CURRENT_FILE} is not the name of a version: {text[:80]!r}")
        if not known:
            raise BundleRejected(f"{name}/{CURRENT_FILE} names version {text!r}, which is not in the store")
        return text

    def manifest(self, name: str, version: str | None = None) -> Manifest:
        """The manifest of a version, by default of the current one, after verifying its signature and seal.

        Raises:
            UnknownModel, BundleRejected: as :meth:`current` and ``read_manifest``.
        """
        directory = self.root / name / (version or self.current(name))
        with _prefixing_errors(directory):
            return read_manifest(directory, self._trusted)

    def load(self, name: str, version: str) -> Bundle:
        """Verifies and loads one version.

        Raises:
            BundleRejected: it failed verification; the text names version, file and reason.
        """
        directory = self.root / name / version
        with _prefixing_errors(directory):
            return load_bundle(directory, self._trusted)

    def file(self, manifest: Manifest, name: str) -> bytes:
        """The content of one file of a version, after comparing it with the manifest.

        Args:
            manifest: of the version.
            name: relative name of the file, as in ``manifest.files``.

        Raises:
            UnknownFile: the manifest does not list a file of that name.
            BundleRejected: the file differs from the manifest; the text names version, file and reason.
        """
        if name not in manifest.files:
            raise UnknownFile(f"{manifest.name}/{manifest.version} has no file {name[:80]!r}")
        directory = self.root / manifest.name / manifest.version
        with _prefixing_errors(directory):
            return verified_files(directory, {name: manifest.files[name]})[name]

    def prepare(self, name: str) -> None:
        """Checks that a model can be published, so that training does not end with an error.

        Raises:
            StoreNotWritable: the model's folder cannot be created or written to.
        """
        model = self.root / name
        with _reporting_os_errors(model):
            model.mkdir(parents=True, exist_ok=True)
            (model / _LOCK_FILE).open("w").close()

    def publish(self, manifest: Manifest, files: Mapping[str, bytes], key: "SigningKey | None" = None) -> Path:
        """Adds a version and makes it current, atomically. A lock lets one process at a time write to a model.

        Args:
            manifest: its ``files`` must describe exactly ``files``.
            files: relative name → content; without the manifest.
            key: signs the version before it becomes visible; None: it is not signed.

        Returns:
            The version's folder.

        Raises:
            StoreNotWritable: the file system reported an error; CURRENT is unchanged.
            BundleRejected: the written version failed verification; it was removed, and CURRENT is unchanged.
            ValueError: ``manifest`` and ``files`` list different files.
        """
        if set(files) != set(manifest.files):
            raise ValueError("the manifest must list exactly the files that are published")
        model = self.root / manifest.name
        with _reporting_os_errors(model):
            model.mkdir(parents=True, exist_ok=True)
            with _locked(model):
                incoming, version = model / f"{_INCOMING_PREFIX}{manifest.version}", model / manifest.version
                sealed = manifest.to_bytes()
                signature = {SIGNATURE_FILE: key.sign(sealed)} if key else {}
                _write_files(incoming, {**files, **signature, MANIFEST_FILE: sealed})
                incoming.rename(version)
                _flush_folder(model)
                self._verify_or_remove(manifest)
                _set_current(model, manifest.version)
        return version

    def sign(self, name: str, version: str, key: "SigningKey") -> None:
        """Signs a version in the store, atomically; an existing signature is replaced.

        Every file is compared with the manifest. The model is not run, because its code is not trusted yet.

        Raises:
            UnknownModel, UnknownVersion: there is no such model, or it has no such version.
            BundleRejected: a file differs from the manifest; nothing was signed.
            StoreNotWritable: the file system reported an error; the version is unchanged.
        """
        self._require_version(name, version)
        model = self.root / name
        with _reporting_os_errors(model), _locked(model):
            with _prefixing_errors(model / version):
                signature = key.sign(content_to_sign(model / version))
            _replace(model / version / SIGNATURE_FILE, signature, scratch=model)

    def activate(self, name: str, version: str) -> None:
        """Makes a version in the store current, atomically; used to roll back, or to undo a rollback.

        Raises:
            UnknownModel, UnknownVersion: there is no such model, or it has no such version.
            BundleRejected: the version failed verification; CURRENT is unchanged.
            StoreNotWritable: the file system reported an error; CURRENT is unchanged.
        """
        self._require_version(name, version)
        model = self.root / name
        with _reporting_os_errors(model), _locked(model):
            self.load(name, version)
            _set_current(model, version)

    def _require_version(self, name: str, version: str) -> None:
        if version not in self.versions(name):
            raise UnknownVersion(f"{name} has no version {version!r}")

    def _verify_or_remove(self, manifest: Manifest) -> None:
        try:
            self.load(manifest.name, manifest.version)
        except BundleRejected:
            shutil.rmtree(self.root / manifest.name / manifest.version)
            raise


def _unknown(name: str) -> UnknownModel:
    return UnknownModel(f"there is no model named {name!r}")


def _set_current(model: Path, version: str) -> None:
    _replace(model / CURRENT_FILE, f"{version}\n".encode(), scratch=model)


@contextmanager
def _prefixing_errors(directory: Path) -> Iterator[None]:
    """Puts model and version in front of the reason of ``BundleRejected``."""
    try:
        yield
    except BundleRejected as error:
        raise BundleRejected(f"{directory.parent.name}/{directory.name}: {error}") from error


@contextmanager
def _reporting_os_errors(model: Path) -> Iterator[None]:
    """Converts errors of the file system to ``StoreNotWritable``."""
    try:
        yield
    except OSError as error:
        raise StoreNotWritable(f"cannot write to {model}: {error.strerror}; the store is unchanged") from error


@contextmanager
def _locked(model: Path) -> Iterator[None]:
    """Holds a model's lock. The kernel releases it if the process dies; the next writer removes what was left."""
    with (model / _LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_abandoned(model)
        yield


def _remove_abandoned(model: Path) -> None:
    """Removes what killed writers left. The caller must hold the lock."""
    for path in model.glob(f"{_INCOMING_PREFIX}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files to a new folder and flushes them and their folders to disk."""
    for name, content in files.items():
        _write_flushed(folder / name, content)
    for parent in {(folder / name).parent for name in files}:
        _flush_folder(parent)


def _write_flushed(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, content: bytes, *, scratch: Path) -> None:
    """Replaces a file atomically. The new content is first written to a temporary file in ``scratch``."""
    incoming = scratch / f"{_INCOMING_PREFIX}{path.name}"
    _write_flushed(incoming, content)
    incoming.replace(path)
    _flush_folder(path.parent)


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
