"""The manifest: its seal, its schema version and its consistency."""

import json
import random

import pytest

from app.inference.bundles.manifest import CalibrationRecord, Manifest, TrialRecord
from app.inference.decisions.conformal import Calibration
from app.inference.errors import BundleRejected
from tests.support import ROOT, SPEC, make_bundle


@pytest.fixture(scope="module")
def raw() -> bytes:
    return make_bundle("m")[0].to_bytes()


def test_manifest_round_trip(raw: bytes) -> None:
    manifest = Manifest.from_bytes(raw)
    assert manifest.to_bytes() == raw
    assert json.loads(raw)["calibration"]["scores"] == sorted(manifest.calibration.scores)


@pytest.mark.parametrize("changed", [{}, {"fit": "pad"}, {"reduction": "area"}, {"jpeg": "scaled"}])
def test_input_fields_are_written_only_if_they_differ(changed: dict[str, str]) -> None:
    """Older programs stretch, reduce with a bilinear filter, decode JPEG images in full, and reject fields that they do
    not know.
    """
    manifest, _ = make_bundle("m", spec=SPEC.model_copy(update=changed))
    assert json.loads(manifest.to_bytes())["input"] == {"mode": "L", "height": 8, "width": 8, **changed}
    assert Manifest.from_bytes(manifest.to_bytes()).input == manifest.input


def test_levels_and_background_are_written_only_if_they_are_set() -> None:
    changes = {"black": 0.0, "white": 4095.0, "background": "white"}
    manifest, _ = make_bundle("m", spec=SPEC.model_copy(update=changes))
    written = json.loads(manifest.to_bytes())["input"]
    assert written == {"mode": "L", "height": 8, "width": 8, **changes}
    assert Manifest.from_bytes(manifest.to_bytes()).input == manifest.input


def test_flipped_bits_are_detected(raw: bytes) -> None:
    positions = random.Random(0).sample(range(len(raw) * 8), 1500)
    for position in positions:
        damaged = bytearray(raw)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(BundleRejected, match=r"^manifest\.json "):
            Manifest.from_bytes(bytes(damaged))


def test_truncation_is_detected(raw: bytes) -> None:
    for length in [0, 1, len(raw) // 2, len(raw) - 2, len(raw) - 1]:
        with pytest.raises(BundleRejected, match=r"^manifest\.json "):
            Manifest.from_bytes(raw[:length])


@pytest.mark.parametrize("version", ["0", "3", '"1"', "null"])
def test_unsupported_schema_version_is_refused(raw: bytes, version: str) -> None:
    other = raw.replace(b'"schema_version": 2', b'"schema_version": ' + version.encode())
    with pytest.raises(BundleRejected, match="another schema version than those that this program supports, 1 and 2"):
        Manifest.from_bytes(other)


def test_contradictions_are_refused_even_with_a_valid_seal() -> None:
    manifest, _ = make_bundle("m")
    for update, message in (
        ({"threshold": manifest.threshold / 2}, "threshold is"),
        ({"false_alarm_rate": 0.001}, "needs at least 999 calibration images"),
        ({"name": "../evil"}, "name"),
        ({"files": {"../model.pt": next(iter(manifest.files.values()))}}, "files"),
    ):
        with pytest.raises(BundleRejected, match=message):
            Manifest.from_bytes(manifest.model_copy(update=update).to_bytes())


def test_calibration_scores_must_be_sorted_and_match_their_number() -> None:
    manifest, _ = make_bundle("m")
    record = manifest.calibration
    for invalid in (
        record.model_copy(update={"size": 5}),
        record.model_copy(update={"scores": record.scores[::-1]}),
    ):
        with pytest.raises(BundleRejected, match=r"manifest\.json is not valid: calibration"):
            Manifest.from_bytes(manifest.model_copy(update={"calibration": invalid}).to_bytes())


def test_split_parts_must_be_disjoint() -> None:
    manifest, _ = make_bundle("m")
    split = manifest.training.split.model_copy(update={"validation": (3,), "calibration": (2, 3)})
    training = manifest.training.model_copy(update={"split": split})
    with pytest.raises(BundleRejected, match="share images"):
        Manifest.from_bytes(manifest.model_copy(update={"training": training}).to_bytes())


def with_groups(count: int, rate: float = 0.05) -> Manifest:
    """A manifest whose 99 calibration images come in ``count`` groups."""
    manifest, _ = make_bundle("m")
    calibration = Calibration(manifest.calibration.scores, [image % count for image in range(99)])
    threshold = calibration.threshold_for(rate)
    record = CalibrationRecord.of(calibration)
    return manifest.model_copy(update={"calibration": record, "threshold": threshold, "false_alarm_rate": rate})


def test_calibration_groups_round_trip() -> None:
    manifest = with_groups(33)
    raw = manifest.to_bytes()
    again = Manifest.from_bytes(raw)
    assert again.to_bytes() == raw
    assert again.calibration.groups == manifest.calibration.groups
    assert (again.calibration.size, again.calibration.effective_size) == (99, 33)
    assert again.calibration.restore().threshold_for(0.05) == manifest.threshold


def test_calibration_groups_are_left_out_if_every_image_is_its_own_group(raw: bytes) -> None:
    assert set(json.loads(raw)["calibration"]) == {"size", "scores"}


def test_folds_and_trials_round_trip_and_are_left_out_otherwise(raw: bytes) -> None:
    """Older programs reject fields that they do not know; older manifests keep their bytes."""
    assert "trials" not in json.loads(raw)["training"]
    manifest = Manifest.from_bytes(raw)
    trial = TrialRecord(recipe="linear", rule="mse", height=8, width=8, auroc=0.75)
    chosen = manifest.model_copy(
        update={
            "calibration": manifest.calibration.model_copy(update={"folds": 5}),
            "training": manifest.training.model_copy(update={"trials": (trial,)}),
        }
    )
    written = json.loads(chosen.to_bytes())
    assert written["calibration"]["folds"] == 5
    assert written["training"]["trials"] == [trial.model_dump()]
    assert Manifest.from_bytes(chosen.to_bytes()).to_bytes() == chosen.to_bytes()
    for changes in ({"folds": 1}, {"folds": 0}):
        invalid = manifest.calibration.model_copy(update=changes)
        with pytest.raises(BundleRejected, match=r"calibration\.folds"):
            Manifest.from_bytes(manifest.model_copy(update={"calibration": invalid}).to_bytes())


def test_older_manifests_keep_their_bytes() -> None:
    """The shipped model was published before folds and trials were recorded."""
    raw = next((ROOT / "model_store").glob("*/*/manifest.json")).read_bytes()
    assert Manifest.from_bytes(raw).to_bytes() == raw


def test_threshold_must_follow_from_the_calibration_groups() -> None:
    manifest = with_groups(33, rate=0.3)
    record = manifest.calibration
    assert record.groups is not None
    per_image = Calibration(record.scores).threshold_for(0.3)
    for update, message in (
        ({"calibration": record.model_copy(update={"groups": record.groups[1:]})}, "there are 98 group numbers"),
        ({"threshold": per_image + 1}, "threshold is"),
        ({"false_alarm_rate": 0.02}, "needs at least 49 groups of calibration images, there are 33"),
        ({"guarantee": "strict"}, "the strict guarantee needs one image per group"),
    ):
        with pytest.raises(BundleRejected, match=message):
            Manifest.from_bytes(manifest.model_copy(update=update).to_bytes())
