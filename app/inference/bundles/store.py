"""The model store: a folder per model, with a folder per version.

::

    <root>/<name>/CURRENT              one line: the version that is served
    <root>/<name>/<version>/           a bundle; only its signature can be added or replaced later

Publishing writes a version to a temporary folder, flushes it to disk, renames it and replaces CURRENT last. After a
crash at any point the store still serves the version that it served before. Activating replaces CURRENT only.
"""

import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.inference.bundles.bundle import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Bundle,
    Trial,
    content_to_sign,
    load_bundle,
    read_manifest,
    require_trial,
    verified_file,
)
from app.inference.bundles.devices import PROCESSOR
from app.inference.bundles.manifest import NAME_PATTERN, VERSION_PATTERN, Manifest
from app.inference.bundles.store_files import is_folder, read_store_file
from app.inference.bundles.store_writing import (
    INCOMING_PREFIX,
    flush_folder,
    locked,
    open_lock,
    removing_on_failure,
    replace,
    write_files,
)
from app.inference.errors import BundleRejected, StoreNotWritable, UnknownFile, UnknownModel, UnknownVersion
from app.suggestions import did_you_mean

if TYPE_CHECKING:
    import torch

    from app.inference.bundles.signing import SigningKey, TrustedKeys

CURRENT_FILE: Final = "CURRENT"
_MAX_CURRENT_BYTES: Final = 256
_MAX_NAMES: Final = 10  # that a message lists
_MAX_FILES: Final = 1000  # of a version, that its state describes

StoreState = tuple[str, tuple[tuple[str, int, int], ...]]
"""The version that CURRENT names and, if asked for, its files: (name, size, modification time)."""


def new_version() -> str:
    """A sortable version name: UTC time, and six random hex digits in case of two publications in one second."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


class ModelStore:
    """A folder of models, each a folder of versions. Methods block; they may be called from any thread or process.

    Args:
        root: the store's folder; it need not exist yet.
        trusted: keys, one of which must have signed every version that is read; None: signatures are ignored.
        trial: must accept a version without a trusted signature before it is loaded; None: it is not tried.
        device: where loaded models compute.
    """

    def __init__(
        self,
        root: Path,
        trusted: "TrustedKeys | None" = None,
        trial: Trial | None = None,
        device: "torch.device" = PROCESSOR,
    ) -> None:
        self.root = root
        self._trusted = trusted
        self._trial = trial
        self._device = device

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
        return sorted(path.name for path in entries if re.fullmatch(VERSION_PATTERN, path.name) and is_folder(path))

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
        version = self._read_current(name)
        try:
            known = is_folder(self.root / name / version)
        except OSError as error:
            raise BundleRejected(f"{name} cannot be read: {error.strerror}") from error
        if not known:
            raise BundleRejected(f"{name}/{CURRENT_FILE} names a version that is not in the store")
        return version

    def _read_current(self, name: str) -> str:
        """The content of CURRENT, which no message quotes: it could be a hard link to another file."""
        self._folder(name)
        try:
            content = read_store_file(self.root, (), f"{name}/{CURRENT_FILE}", limit=_MAX_CURRENT_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            raise _unknown(name) from None
        except OSError as error:
            raise BundleRejected(f"{name}/{CURRENT_FILE} cannot be read: {error.strerror}") from error
        version = content.decode("ascii", "replace").strip()
        if not re.fullmatch(VERSION_PATTERN, version):
            raise BundleRejected(f"{name}/{CURRENT_FILE} is not the name of a version")
        return version

    def state(self, name: str, *, files: bool) -> StoreState | None:
        """What is on disk, to notice changes: what was refused can be valid once it differs.

        Args:
            name: of a model.
            files: whether to describe the files of the version too.

        Returns:
            None if there is no CURRENT or the store cannot be read, so that the next poll looks again.
        """
        try:
            version = self.current(name)
            return version, tuple(sorted(islice(_files_of(self.root / name / version), _MAX_FILES))) if files else ()
        except BundleRejected:
            return "", tuple(_described(self.root / name / CURRENT_FILE))
        except (OSError, UnknownModel):
            return None

    def manifest(self, name: str, version: str | None = None) -> Manifest:
        """The manifest of a version, by default of the current one, after verifying its signature and seal.

        Raises:
            UnknownModel, BundleRejected: as :meth:`current` and ``read_manifest``.
        """
        directory = self.root / name / (version or self.current(name))
        with _prefixing_errors(directory):
            return read_manifest(directory, self._trusted)

    def try_out(self, name: str, version: str) -> None:
        """Tries a version, so that :meth:`load` does not wait for its trial.

        Raises:
            BundleRejected: as :meth:`load`.
        """
        directory = self.root / name / version
        if self._trial is not None:
            with _prefixing_errors(directory):
                require_trial(directory, self._trusted, self._trial)

    def load(self, name: str, version: str) -> Bundle:
        """Verifies and loads one version.

        Raises:
            BundleRejected: it failed verification; the text names version, file and reason.
        """
        directory = self.root / name / version
        with _prefixing_errors(directory):
            return load_bundle(directory, self._trusted, self._trial, self._device)

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
            return verified_file(directory, name, manifest.files[name])

    def prepare(self, name: str) -> None:
        """Checks that a model can be published, so that training does not end with an error.

        Raises:
            StoreNotWritable: the model's folder cannot be created or written to.
        """
        model = self.root / name
        with _reporting_os_errors(model):
            model.mkdir(parents=True, exist_ok=True)
            os.close(open_lock(model))

    def publish(
        self,
        manifest: Manifest,
        files: Mapping[str, bytes],
        key: "SigningKey | None" = None,
        *,
        activate: bool = True,
    ) -> Path:
        """Adds a version and makes it current, atomically. A lock lets one process at a time write to a model.

        Args:
            manifest: its ``files`` must describe exactly ``files``.
            files: relative name → content; without the manifest.
            key: signs the version before it becomes visible; None: it is not signed.
            activate: make it current; otherwise the current version stays current.

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
            with locked(model):
                incoming, version = model / f"{INCOMING_PREFIX}{manifest.version}", model / manifest.version
                sealed = manifest.to_bytes()
                signature = {SIGNATURE_FILE: key.sign(sealed)} if key else {}
                with removing_on_failure(incoming):
                    write_files(incoming, {**files, **signature, MANIFEST_FILE: sealed})
                    incoming.rename(version)
                with removing_on_failure(version):
                    flush_folder(model)
                    self.load(manifest.name, manifest.version)
                    if activate:
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
        with _reporting_os_errors(model), locked(model):
            with _prefixing_errors(model / version):
                signature = key.sign(content_to_sign(model / version))
            replace(model / version / SIGNATURE_FILE, signature, scratch=model)

    def activate(self, name: str, version: str) -> None:
        """Makes a version in the store current, atomically; used to roll back, or to undo a rollback.

        Raises:
            UnknownModel, UnknownVersion: there is no such model, or it has no such version.
            BundleRejected: the version failed verification; CURRENT is unchanged.
            StoreNotWritable: the file system reported an error; CURRENT is unchanged.
        """
        self._require_version(name, version)
        model = self.root / name
        with _reporting_os_errors(model), locked(model):
            self.load(name, version)
            _set_current(model, version)

    def _require_version(self, name: str, version: str) -> None:
        if version not in self.versions(name):
            raise UnknownVersion(f"{name} has no version {version!r}")


def _unknown(name: str) -> UnknownModel:
    return UnknownModel(f"there is no model named {name!r}")


def _set_current(model: Path, version: str) -> None:
    replace(model / CURRENT_FILE, f"{version}\n".encode(), scratch=model)


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


def _files_of(version: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and modification time of the files of a version; links are not followed."""
    for folder in (version, version / "report"):
        if is_folder(folder):
            for entry in folder.iterdir():
                yield from _described(entry)


def _described(path: Path) -> Iterator[tuple[str, int, int]]:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        yield str(path), found.st_size, found.st_mtime_ns
