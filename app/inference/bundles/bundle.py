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
from app.inference.decisions.conformal import Calibration
from app.inference.errors import BundleRejected, InferenceError
from app.inference.images.decoding import InputSpec, open_image, stack

if TYPE_CHECKING:
    from app.inference.bundles.signing import TrustedKeys

MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "manifest.sig"
MODEL_FILE: Final = "model.pt"

# Other processors and library builds round differently; a changed weight or decode step shows far above this.
_GOLDEN_TOLERANCE: Final = 1e-3
_MAX_MANIFEST_BYTES: Final = 64 * 2**20
_MAX_SIGNATURE_BYTES: Final = 1024
_GOLDEN_MAX_PIXELS: Final = 2048 * 2048


@dataclass(frozen=True)
class BatchScores:
    """What a model makes of a batch.

    Attributes:
        reconstruction: (N, C, H, W) float32.
        mse: N values, mean squared difference over channels and pixels.
        score: N values, the error that verdicts are decided on.
    """

    reconstruction: torch.Tensor
    mse: list[float]
    score: list[float]


@dataclass(frozen=True)
class Bundle:
    """A verified version: its card, its network and its calibration."""

    manifest: Manifest
    model: torchscript.ScoringModel
    calibration: Calibration

    @property
    def spec(self) -> InputSpec:
        """What images are made into for this model."""
        return self.manifest.input

    def score_batch(self, images: torch.Tensor) -> BatchScores:
        """One forward pass. Blocks; any thread.

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
    """Reads a version's manifest, signature and seal checked, other files untouched.

    Args:
        directory: ``<store>/<name>/<version>``.
        trusted: whose signature it must carry; None: signatures are not looked at.

    Raises:
        BundleRejected: it is missing, unreadable, changed, not signed by a trusted key, or of another model or version
            than its folders say.
    """
    raw = _read(directory, MANIFEST_FILE, limit=_MAX_MANIFEST_BYTES)
    if trusted is not None:
        trusted.require_signature(raw, _read_signature(directory))
    return _parse_manifest(directory, raw)


def content_to_sign(directory: Path) -> bytes:
    """The bytes of a version's manifest, after every file was compared with it; the model is not run.

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
    """Reads files of a version and compares each with what the manifest says of it.

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

    The network is loaded from the very bytes whose checksum was verified, never read a second time. A manifest that
    is not signed as it must be is not even parsed, and nothing that it names is opened.

    Args:
        directory: ``<store>/<name>/<version>``.
        trusted: whose signature it must carry; None: signatures are not looked at.

    Raises:
        BundleRejected: anything is amiss; the text names the file and the reason.
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
        raise BundleRejected(f"{SIGNATURE_FILE} is missing: it is not signed, and only what is signed is trusted here")
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
    """Two probe images must come back as (2, C, H, W), (2,), (2,), all finite float32."""
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
        raise BundleRejected(f"{MODEL_FILE} answers a probe with {shapes}, not finite float32 of shapes {expected}")


def _check_golden(bundle: Bundle) -> None:
    golden = bundle.manifest.golden
    try:
        data = base64.b64decode(golden.image, validate=True)
        decoded = open_image(data, max_pixels=_GOLDEN_MAX_PIXELS).decode(bundle.spec)
    except (binascii.Error, InferenceError) as error:
        raise BundleRejected(f"manifest.json holds a golden image that cannot be read: {error}") from error
    for size in (1, 2):  # alone and in a batch, which other kernels work on
        scores = bundle.score_batch(stack([decoded] * size))
        for what, expected, got in (("MSE", golden.mse, scores.mse[-1]), ("score", golden.score, scores.score[-1])):
            if not math.isclose(expected, got, rel_tol=_GOLDEN_TOLERANCE, abs_tol=1e-7):
                raise BundleRejected(
                    f"{MODEL_FILE} gives the golden image the {what} {got:.6g}, the manifest says {expected:.6g}"
                )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
