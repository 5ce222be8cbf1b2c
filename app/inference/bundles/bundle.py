"""A bundle: one version of a model, verified and ready to score."""

import base64
import binascii
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from app.inference.bundles import torchscript
from app.inference.bundles.manifest import FileRecord, Manifest
from app.inference.decisions.conformal import Calibration, OperatingPoint
from app.inference.errors import BundleRejected, InferenceError
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec, stack

if TYPE_CHECKING:
    from app.inference.bundles.signing import TrustedKeys

MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "manifest.sig"
MODEL_FILE: Final = "model.pt"

# Other processors and library builds round differently; a changed weight or decode step differs by far more.
_GOLDEN_TOLERANCE: Final = 1e-3
_MAX_MANIFEST_BYTES: Final = 64 * 2**20
_MAX_SIGNATURE_BYTES: Final = 1024
_GOLDEN_MAX_PIXELS: Final = 2048 * 2048


@dataclass(frozen=True)
class BatchScores:
    """What a model returns for a batch.

    Attributes:
        reconstruction: (N, C, H, W) float32.
        mse: N values, mean squared difference over channels and pixels.
        score: N values, the numbers that verdicts are decided on.
    """

    reconstruction: torch.Tensor
    mse: list[float]
    score: list[float]


@dataclass(frozen=True)
class Bundle:
    """A verified version: manifest, network and calibration."""

    manifest: Manifest
    model: torchscript.ScoringModel
    calibration: Calibration

    @property
    def spec(self) -> InputSpec:
        """What the model takes."""
        return self.manifest.input

    def operating_point(self, false_alarm_rate: float | None = None) -> OperatingPoint:
        """What decides at a false-alarm rate; by default at the one calibrated into the bundle.

        Raises:
            UnsupportedFalseAlarmRate: the rate is outside (0, 1) or finer than the calibration set supports.
        """
        manifest = self.manifest
        if false_alarm_rate is None:
            return OperatingPoint(manifest.false_alarm_rate, manifest.threshold)
        return OperatingPoint(false_alarm_rate, self.calibration.threshold_for(false_alarm_rate, manifest.guarantee))

    def score_batch(self, images: torch.Tensor) -> BatchScores:
        """One forward pass. Blocks; may be called from any thread.

        Args:
            images: (N, C, H, W) float32 in [0, 1].
        """
        with torch.inference_mode():
            reconstruction, mse, score = self.model(images)
            return BatchScores(reconstruction, mse.tolist(), score.tolist())


def file_record(content: bytes) -> FileRecord:
    """Size and SHA-256 of a file's content."""
    return FileRecord(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def read_manifest(directory: Path, trusted: "TrustedKeys | None" = None) -> Manifest:
    """Reads a version's manifest and checks signature and seal; other files are not read.

    Args:
        directory: ``<store>/<name>/<version>``.
        trusted: keys, one of which must have signed it; None: signatures are ignored.

    Raises:
        BundleRejected: it is missing, unreadable, changed, not signed by a trusted key, or belongs to another model or
            version than its folders say.
    """
    raw = _read(directory, MANIFEST_FILE, limit=_MAX_MANIFEST_BYTES)
    if trusted is not None:
        trusted.require_signature(raw, _read_signature(directory))
    return _parse_manifest(directory, raw)


def content_to_sign(directory: Path) -> bytes:
    """The bytes of a version's manifest, after checking every file against it; the model is not run.

    Raises:
        BundleRejected: as :func:`read_manifest` and :func:`verified_files`.
    """
    raw = _read(directory, MANIFEST_FILE, limit=_MAX_MANIFEST_BYTES)
    verified_files(directory, _parse_manifest(directory, raw).files)
    return raw


def _parse_manifest(directory: Path, raw: bytes) -> Manifest:
    manifest = Manifest.from_bytes(raw)
    if (manifest.name, manifest.version) != (directory.parent.name, directory.name):
        raise BundleRejected(
            f"manifest.json belongs to {manifest.name}/{manifest.version}, "
            f"but lies in {directory.parent.name}/{directory.name}"
        )
    return manifest


def verified_files(directory: Path, records: Mapping[str, FileRecord]) -> dict[str, bytes]:
    """Reads files of a version and checks size and SHA-256 of each.

    Raises:
        BundleRejected: one is missing, unreadable or changed.
    """
    contents = {}
    for name, expected in records.items():
        content = _read(directory, name)
        if len(content) != expected.bytes:
            raise BundleRejected(f"{name} has {len(content)} bytes, the manifest says {expected.bytes}")
        if file_record(content) != expected:
            raise BundleRejected(f"{name} was changed: its SHA-256 is not the manifest's")
        contents[name] = content
    return contents


def load_bundle(directory: Path, trusted: "TrustedKeys | None" = None) -> Bundle:
    """Verifies a version and loads it: signature, seal and schema, every checksum, a probe, the golden score.

    The network is loaded from the bytes whose checksum was verified; the file is not read twice. A manifest without the
    required signature is not parsed, and no file that it names is opened.

    Args:
        directory: ``<store>/<name>/<version>``.
        trusted: keys, one of which must have signed it; None: signatures are ignored.

    Raises:
        BundleRejected: verification failed; the text names the file and the reason.
    """
    manifest = read_manifest(directory, trusted)
    if MODEL_FILE not in manifest.files:
        raise BundleRejected(f"manifest.json lists no {MODEL_FILE}")
    archive = verified_files(directory, manifest.files)[MODEL_FILE]
    try:
        model = torchscript.load(archive)
    except RuntimeError as error:
        raise BundleRejected(f"{MODEL_FILE} cannot be loaded by torch: {_first_line(error)}") from error
    bundle = Bundle(manifest, model, Calibration(manifest.calibration.scores))
    _check_probe(bundle)
    _check_golden(bundle)
    return bundle


def _read_signature(directory: Path) -> bytes:
    if not (directory / SIGNATURE_FILE).exists():
        raise BundleRejected(
            f"{SIGNATURE_FILE} is missing: the version is not signed, and only signed versions are trusted"
        )
    return _read(directory, SIGNATURE_FILE, limit=_MAX_SIGNATURE_BYTES)


def _read(directory: Path, name: str, *, limit: int | None = None) -> bytes:
    path = directory / name
    try:
        if limit is not None and path.stat().st_size > limit:
            raise BundleRejected(f"{name} is larger than {limit:,} bytes")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleRejected(f"{name} is missing") from error
    except OSError as error:
        raise BundleRejected(f"{name} cannot be read: {error.strerror}") from error


def _check_probe(bundle: Bundle) -> None:
    """For two probe images the model must return (2, C, H, W), (2,), (2,), all finite float32."""
    probe = torch.stack([torch.zeros(bundle.spec.shape), torch.full(bundle.spec.shape, 0.5)])
    expected = [tuple(probe.shape), (2,), (2,)]
    try:
        with torch.inference_mode():
            outputs = tuple(bundle.model(probe))
            shapes = [tuple(output.shape) for output in outputs]
            good = shapes == expected and all(
                output.dtype == torch.float32 and bool(output.isfinite().all()) for output in outputs
            )
    except (RuntimeError, TypeError, AttributeError) as error:
        raise BundleRejected(f"{MODEL_FILE} fails on a probe image: {_first_line(error)}") from error
    if not good:
        raise BundleRejected(f"{MODEL_FILE} returns {shapes} for a probe, not finite float32 of shapes {expected}")


def _check_golden(bundle: Bundle) -> None:
    golden = bundle.manifest.golden
    try:
        data = base64.b64decode(golden.image, validate=True)
        decoded = open_image(data, max_pixels=_GOLDEN_MAX_PIXELS).decode(bundle.spec)
    except (binascii.Error, InferenceError) as error:
        raise BundleRejected(f"manifest.json holds a golden image that cannot be read: {error}") from error
    for size in (1, 2):  # alone and in a batch: other kernels compute these
        scores = bundle.score_batch(stack([decoded] * size))
        for what, expected, got in (("MSE", golden.mse, scores.mse[-1]), ("score", golden.score, scores.score[-1])):
            if not math.isclose(expected, got, rel_tol=_GOLDEN_TOLERANCE, abs_tol=1e-7):
                raise BundleRejected(
                    f"{MODEL_FILE} gives the golden image the {what} {got:.6g}, the manifest says {expected:.6g}"
                )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
