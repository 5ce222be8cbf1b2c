"""A bundle: one version of a model, verified and ready to score."""

import base64
import binascii
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self

import torch

from app.inference.bundles import torchscript
from app.inference.bundles.devices import PROCESSOR
from app.inference.bundles.manifest import FileRecord, Manifest
from app.inference.bundles.store_files import open_store_file, read_store_file, size_of
from app.inference.decisions.conformal import Calibration, OperatingPoint
from app.inference.errors import BundleRejected, InferenceError
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec, stack

if TYPE_CHECKING:
    from app.inference.bundles.signing import TrustedKeys

MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "manifest.sig"
MODEL_FILE: Final = "model.pt"

Trial = Callable[[Path, str], None]
"""Called with a version's folder and the SHA-256 of its manifest before its model is loaded; raises to refuse it."""

# Processors and library builds round differently; a changed weight or decoding step differs by far more.
_GOLDEN_TOLERANCE: Final = 1e-3
_MAX_MANIFEST_BYTES: Final = 16 * 2**20  # 400,000 calibration images; parsing takes a multiple of it in memory
_MAX_SIGNATURE_BYTES: Final = 1024
_MAX_FILE_BYTES: Final = 512 * 2**20  # whoever writes a manifest also writes the sizes in it
_CHUNK_BYTES: Final = 2**20
_MAX_REASON: Final = 200
_GOLDEN_MAX_PIXELS: Final = 2048 * 2048


@dataclass(frozen=True)
class BatchScores:
    """The output of a model for a batch of N images.

    Attributes:
        reconstruction: (N, C, H, W) float32.
        mse: N values, mean squared difference over channels and pixels.
        score: N values, the numbers that are compared with the threshold.
        error_map: (N, 1, h, w) float32 on the model's own grid; None for bundles of schema version 1.
        scope: N values, above 1 for images that do not look like the training images; None if the model has none.
    """

    reconstruction: torch.Tensor
    mse: list[float]
    score: list[float]
    error_map: torch.Tensor | None = None
    scope: list[float] | None = None

    @classmethod
    def of(cls, outputs: tuple[torch.Tensor, ...]) -> Self:
        """From what a model returns."""
        reconstruction, mse, score, *more = outputs
        error_map, scope = (*more, None, None)[:2]
        return cls(reconstruction, mse.tolist(), score.tolist(), error_map, None if scope is None else scope.tolist())


@dataclass(frozen=True)
class Bundle:
    """A verified version of a model.

    Attributes:
        manifest: its description, with threshold and checksums.
        model: the network, loaded and optimised for inference.
        calibration: the scores of its calibration images.
        device: where the model computes.
    """

    manifest: Manifest
    model: torchscript.ScoringModel
    calibration: Calibration
    device: torch.device = PROCESSOR

    @property
    def spec(self) -> InputSpec:
        """Colour mode and size of the model's input."""
        return self.manifest.input

    def operating_point(self, false_alarm_rate: float | None = None, threshold: float | None = None) -> OperatingPoint:
        """The threshold for a false-alarm rate, or a given one.

        Args:
            false_alarm_rate: in (0, 1); None: the rate and threshold of the manifest.
            threshold: in score units; the result then has no rate. Excludes a rate.

        Raises:
            UnsupportedFalseAlarmRate: the rate is outside (0, 1) or smaller than the calibration set supports.
        """
        manifest = self.manifest
        if threshold is not None:
            return OperatingPoint(None, threshold)
        if false_alarm_rate is None:
            return OperatingPoint(manifest.false_alarm_rate, manifest.threshold)
        return OperatingPoint(false_alarm_rate, self.calibration.threshold_for(false_alarm_rate, manifest.guarantee))

    def score_batch(self, images: torch.Tensor) -> BatchScores:
        """Runs one forward pass. Blocks; may be called from any thread.

        Args:
            images: (N, C, H, W) float32 in [0, 1].

        Returns:
            Values may be NaN or infinite; the caller checks them.
        """
        with torch.inference_mode():
            return BatchScores.of(self.model(images))


def file_record(content: bytes) -> FileRecord:
    """Size and SHA-256 of a file's content."""
    return FileRecord(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def read_manifest(directory: Path, trusted: "TrustedKeys | None" = None) -> Manifest:
    """Reads a version's manifest and verifies its signature and seal; other files are not read.

    Args:
        directory: ``<store>/<name>/<version>``.
        trusted: keys, one of which must have signed it; None: signatures are ignored.

    Raises:
        BundleRejected: the manifest is missing, unreadable, changed, not signed with a trusted key, or belongs to
            another model or version than its folders are named for.
    """
    return _read_verified(directory, trusted)[0]


def require_trial(directory: Path, trusted: "TrustedKeys | None", trial: Trial) -> None:
    """Tries a version, unless a trusted key has signed it: whoever signs a model vouches for it.

    Raises:
        BundleRejected: as :func:`read_manifest`, or it failed its trial.
    """
    _, digest = _read_verified(directory, trusted)
    if trusted is None:
        trial(directory, digest)


def _read_verified(directory: Path, trusted: "TrustedKeys | None") -> tuple[Manifest, str]:
    """A version's manifest and its SHA-256."""
    raw = _read_manifest(directory)
    if trusted is not None:
        trusted.require_signature(raw, _read_signature(directory))
    return _parse_manifest(directory, raw), hashlib.sha256(raw).hexdigest()


def content_to_sign(directory: Path) -> bytes:
    """The bytes of a version's manifest, after every file was compared with it; the model is not run.

    Raises:
        BundleRejected: as :func:`read_manifest` and :func:`verify_files`.
    """
    raw = _read_manifest(directory)
    verify_files(directory, _parse_manifest(directory, raw).files)
    return raw


def _parse_manifest(directory: Path, raw: bytes) -> Manifest:
    manifest = Manifest.from_bytes(raw)
    if (manifest.name, manifest.version) != (directory.parent.name, directory.name):
        raise BundleRejected(
            f"manifest.json belongs to another model or version, "
            f"but is in the folder {directory.parent.name}/{directory.name}"
        )
    return manifest


def verify_files(directory: Path, records: Mapping[str, FileRecord]) -> None:
    """Verifies size and SHA-256 of files of a version. Reads them piece by piece.

    Args:
        directory: ``<store>/<name>/<version>``.
        records: file name → expected size and checksum.

    Raises:
        BundleRejected: a file is missing, unreadable or changed.
    """
    for name, expected in records.items():
        with _opened(directory, name, expected) as file:
            digest = hashlib.sha256()
            while piece := file.read(_CHUNK_BYTES):
                digest.update(piece)
            _require_checksum(name, digest.hexdigest(), expected)


def verified_file(directory: Path, name: str, expected: FileRecord) -> bytes:
    """The content of a file of a version, after verifying its size and SHA-256.

    Args:
        directory: ``<store>/<name>/<version>``.
        name: of the file, relative to it.
        expected: size and checksum.

    Raises:
        BundleRejected: as :func:`verify_files`; or the manifest lists more than 512 MiB.
    """
    if expected.bytes > _MAX_FILE_BYTES:
        raise BundleRejected(f"{name} is larger than {_MAX_FILE_BYTES:,} bytes")
    with _opened(directory, name, expected) as file:
        content = file.read(expected.bytes)
    _require_checksum(name, file_record(content).sha256, expected)
    return content


@contextmanager
def _opened(directory: Path, name: str, expected: FileRecord) -> Iterator[BinaryIO]:
    """Opens a file of the expected size; reports every error as ``BundleRejected``."""
    try:
        with open_store_file(*_place(directory), name) as file:
            if (size := size_of(file)) != expected.bytes:
                raise BundleRejected(f"{name} has {size} bytes, but manifest.json lists {expected.bytes}")
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleRejected(f"{name} is missing") from error
    except OSError as error:
        raise BundleRejected(f"{name} cannot be read: {error.strerror}") from error


def _require_checksum(name: str, sha256: str, expected: FileRecord) -> None:
    if sha256 != expected.sha256:
        raise BundleRejected(f"{name} was changed: its SHA-256 differs from manifest.json")


def load_bundle(
    directory: Path,
    trusted: "TrustedKeys | None" = None,
    trial: Trial | None = None,
    device: torch.device = PROCESSOR,
) -> Bundle:
    """Verifies a version and loads it.

    The checks, in this order: signature (if keys are given), seal and schema of the manifest, checksums of all files,
    the shapes that the model returns for two probe images, and the scores that it gives the golden image.

    The network is loaded from the bytes whose checksum was verified; the file is not read twice. A manifest without the
    required signature is not parsed, and no file that it names is opened.

    Args:
        directory: ``<store>/<name>/<version>``.
        trusted: keys, one of which must have signed it; None: signatures are ignored.
        trial: must accept exactly the version that is loaded, if no signature is required; None: it is not tried.
        device: where the model computes.

    Raises:
        BundleRejected: verification failed; the text names the file and the reason.
    """
    manifest, digest = _read_verified(directory, trusted)
    if trial is not None and trusted is None:
        trial(directory, digest)
    if MODEL_FILE not in manifest.files:
        raise BundleRejected(f"manifest.json does not list {MODEL_FILE}")
    verify_files(directory, {name: record for name, record in manifest.files.items() if name != MODEL_FILE})
    archive = verified_file(directory, MODEL_FILE, manifest.files[MODEL_FILE])
    try:
        model = torchscript.load(archive, device)
    except RuntimeError as error:
        raise BundleRejected(f"{MODEL_FILE} cannot be loaded by torch: {last_line(error)}") from error
    bundle = Bundle(manifest, model, manifest.calibration.restore(), device)
    _check_probe(bundle)
    _check_golden(bundle)
    return bundle


def _read_signature(directory: Path) -> bytes:
    try:
        return read_store_file(*_place(directory), SIGNATURE_FILE, limit=_MAX_SIGNATURE_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleRejected(f"{SIGNATURE_FILE} is missing: the version must be signed with a trusted key") from error


def _read_manifest(directory: Path) -> bytes:
    try:
        return read_store_file(*_place(directory), MANIFEST_FILE, limit=_MAX_MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleRejected(f"{MANIFEST_FILE} is missing") from error


def _place(directory: Path) -> tuple[Path, tuple[str, str]]:
    """The store, and the folders of a version in it."""
    return directory.parent.parent, (directory.parent.name, directory.name)


def _check_probe(bundle: Bundle) -> None:
    """For two probe images the model must return the shapes that the manifest promises, all finite float32."""
    probe = torch.stack([torch.zeros(bundle.spec.shape), torch.full(bundle.spec.shape, 0.5)])
    expected: list[tuple[int, ...]] = [tuple(probe.shape), (2,), (2,)]
    if (grid := bundle.manifest.error_map) is not None:
        expected.append((2, 1, grid.height, grid.width))
    if bundle.manifest.scope is not None:
        expected.append((2,))
    try:
        with torch.inference_mode():
            outputs = tuple(bundle.model(probe))
            shapes = [tuple(output.shape) for output in outputs]
            valid = shapes == expected and all(
                output.dtype == torch.float32 and bool(output.isfinite().all()) for output in outputs
            )
    except (RuntimeError, TypeError, AttributeError) as error:
        raise BundleRejected(f"{MODEL_FILE} fails on a probe image: {last_line(error)}") from error
    if not valid:
        raise BundleRejected(
            f"{MODEL_FILE} returns shapes {shapes} for two probe images; expected finite float32 of shapes {expected}"
        )


def _check_golden(bundle: Bundle) -> None:
    """The model must give the golden image the recorded MSE and score, within ``_GOLDEN_TOLERANCE``."""
    golden = bundle.manifest.golden
    try:
        data = base64.b64decode(golden.image, validate=True)
        decoded = open_image(data, max_pixels=_GOLDEN_MAX_PIXELS).decode(bundle.spec)
    except (binascii.Error, InferenceError) as error:
        raise BundleRejected(f"manifest.json contains a golden image that cannot be read: {error}") from error
    for size in (1, 2):  # single images and batches run on different kernels
        scores = bundle.score_batch(stack([decoded] * size))
        for figure, expected, got in (("MSE", golden.mse, scores.mse[-1]), ("score", golden.score, scores.score[-1])):
            if not math.isclose(expected, got, rel_tol=_GOLDEN_TOLERANCE, abs_tol=1e-7):
                raise BundleRejected(
                    f"{MODEL_FILE} gives the golden image {figure} {got:.6g}, but manifest.json records {expected:.6g}"
                )


def last_line(error: Exception) -> str:
    """The last line of a message, shortened: torch puts the cause after its stack trace, and a model can raise any."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:_MAX_REASON] if lines else type(error).__name__
