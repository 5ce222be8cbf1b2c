"""Verification of bundles: every kind of damage is detected before the model is run."""

from pathlib import Path

import pytest
import torch

from app.inference.bundles.bundle import file_record, load_bundle
from app.inference.bundles.manifest import Manifest, ScopeRecord
from app.inference.errors import BundleRejected
from tests.support import make_bundle


def _write(folder: Path, manifest: Manifest, files: dict[str, bytes]) -> Path:
    """Writes a version without verifying it."""
    directory = folder / manifest.name / manifest.version
    for name, content in {**files, "manifest.json": manifest.to_bytes()}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def _with_model(manifest: Manifest, files: dict[str, bytes], archive: bytes) -> tuple[Manifest, dict[str, bytes]]:
    """The same version with another model.pt and its checksum in the manifest."""
    records = {**manifest.files, "model.pt": file_record(archive)}
    return manifest.model_copy(update={"files": records}), {**files, "model.pt": archive}


def test_valid_bundle_is_loaded_and_scores(tmp_path: Path) -> None:
    bundle = load_bundle(_write(tmp_path, *make_bundle("m")))
    scores = bundle.score_batch(torch.rand(3, 1, 8, 8))
    assert scores.reconstruction.shape == (3, 1, 8, 8)
    assert len(scores.mse) == len(scores.score) == 3


@pytest.mark.parametrize("file", ["model.pt", "manifest.json", "report/loss.png"])
class TestDamage:
    def test_missing_file(self, tmp_path: Path, file: str) -> None:
        directory = _write(tmp_path, *make_bundle("m"))
        (directory / file).unlink()
        with pytest.raises(BundleRejected, match=f"^{file} is missing$"):
            load_bundle(directory)

    @pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
    def test_truncated_file(self, tmp_path: Path, file: str, keep: float) -> None:
        directory = _write(tmp_path, *make_bundle("m"))
        content = (directory / file).read_bytes()
        (directory / file).write_bytes(content[: int(len(content) * keep)])
        with pytest.raises(BundleRejected, match=f"^{file} "):
            load_bundle(directory)

    @pytest.mark.parametrize("where", [0.0, 0.3, 0.7, 1.0])
    def test_flipped_bit(self, tmp_path: Path, file: str, where: float) -> None:
        directory = _write(tmp_path, *make_bundle("m"))
        content = bytearray((directory / file).read_bytes())
        content[int((len(content) - 1) * where)] ^= 4
        (directory / file).write_bytes(content)
        with pytest.raises(BundleRejected, match=f"^{file} "):
            load_bundle(directory)

    def test_folder_instead_of_file(self, tmp_path: Path, file: str) -> None:
        directory = _write(tmp_path, *make_bundle("m"))
        (directory / file).unlink()
        (directory / file).mkdir()
        with pytest.raises(BundleRejected, match=f"^{file} cannot be read"):
            load_bundle(directory)


def test_checksum_is_verified_before_the_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = _write(tmp_path, *make_bundle("m"))
    (directory / "model.pt").write_bytes((directory / "model.pt").read_bytes()[:-1] + b"x")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("loaded an unverified archive"))
    with pytest.raises(BundleRejected, match="was changed"):
        load_bundle(directory)


def test_version_in_the_folder_of_another_is_refused(tmp_path: Path) -> None:
    directory = _write(tmp_path, *make_bundle("m"))
    moved = directory.rename(directory.parent / "other")
    with pytest.raises(BundleRejected, match=r"belongs to another model or version, but is in the folder m/other"):
        load_bundle(moved)


def test_archive_that_torch_cannot_read_is_refused(tmp_path: Path) -> None:
    directory = _write(tmp_path, *_with_model(*make_bundle("m"), b"no archive at all"))
    with pytest.raises(BundleRejected, match=r"^model\.pt cannot be loaded by torch: .+$") as caught:
        load_bundle(directory)
    assert "\n" not in str(caught.value)


def test_other_weights_are_detected_by_the_golden_image(tmp_path: Path) -> None:
    manifest, files = make_bundle("m", seed=0)
    other = make_bundle("m", seed=1)[1]["model.pt"]
    with pytest.raises(BundleRejected, match=r"model\.pt gives the golden image MSE"):
        load_bundle(_write(tmp_path, *_with_model(manifest, files, other)))


class _Flattened(torch.nn.Module):
    """Drops the channel dimension."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mse = images.flatten(1).mean(1)
        return images.squeeze(1), mse, mse


class _NotANumber(torch.nn.Module):
    """Returns NaN."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        nan = images.flatten(1).mean(1) / 0 * 0
        return images, nan, nan


class _OneOutput(torch.nn.Module):
    """Returns no MSE and no score."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


@pytest.mark.parametrize("network", [_Flattened(), _NotANumber(), _OneOutput()])
def test_model_with_invalid_output_is_refused(tmp_path: Path, network: torch.nn.Module) -> None:
    from app.inference.bundles import torchscript

    with pytest.raises(BundleRejected, match=r"^model\.pt (returns|fails on) .*probe"):
        load_bundle(_write(tmp_path, *_with_model(*make_bundle("m"), torchscript.dump(network))))


def test_manifest_that_promises_a_scope_needs_a_model_that_returns_one(tmp_path: Path) -> None:
    manifest, files = make_bundle("m")
    scope = ScopeRecord(statistics="pixels", limit=2, largest=1, rate=0.001)
    promised = manifest.model_copy(update={"scope": scope})
    assert Manifest.from_bytes(promised.to_bytes()).scope == scope
    with pytest.raises(BundleRejected, match=r"^model\.pt returns shapes .* expected .*\(2,\)\]$"):
        load_bundle(_write(tmp_path, promised, files))


def test_bundle_of_before_scope_has_none(tmp_path: Path) -> None:
    manifest, files = make_bundle("m")
    assert b'"scope"' not in manifest.to_bytes()
    bundle = load_bundle(_write(tmp_path, manifest, files))
    assert bundle.score_batch(torch.rand(3, 1, 8, 8)).scope is None


def test_unreadable_golden_image_is_refused(tmp_path: Path) -> None:
    manifest, files = make_bundle("m")
    golden = manifest.golden.model_copy(update={"image": "bm8gaW1hZ2U="})
    with pytest.raises(BundleRejected, match="golden image that cannot be read"):
        load_bundle(_write(tmp_path, manifest.model_copy(update={"golden": golden}), files))


def test_manifest_without_a_model_is_refused(tmp_path: Path) -> None:
    manifest, files = make_bundle("m")
    records = {"report/loss.png": manifest.files["report/loss.png"]}
    with pytest.raises(BundleRejected, match=r"does not list model\.pt"):
        load_bundle(_write(tmp_path, manifest.model_copy(update={"files": records}), files))
