"""What a model card says about its fitness for use."""

from typing import Any

import pytest

from app.inference.bundles.fitness import fitness
from app.inference.bundles.manifest import Evaluation, KindFigures, Manifest
from tests.support import make_bundle

MANIFEST, _ = make_bundle("parts")


def manifest(
    found: float, *, auroc: float = 0.8, alarms: float = 0.01, recipe: str = "conv", **kinds: float
) -> Manifest:
    figures = {kind: KindFigures(count=50, flagged=flagged, median_score=1) for kind, flagged in kinds.items()}
    evaluation = Evaluation(
        normal=200, anomalies=100, false_alarm_rate=alarms, detection_rate=found, auroc=auroc, average_precision=0.9,
        kinds={"normal": KindFigures(count=200, flagged=alarms, median_score=0), **figures},
    )  # fmt: skip
    training = MANIFEST.training.model_copy(update={"recipe": {"name": recipe}})
    return MANIFEST.model_copy(update={"evaluation": evaluation, "training": training})


@pytest.mark.parametrize(
    ("found", "begins"),
    [
        (0.97, "Fit for use: it finds 97% of the 100 test anomalies and calls 1.0% of the 200 normal test images"),
        (0.7, "Fit for use with care: it finds 70% of the 100 test anomalies"),
        (0.05, "Not fit for use: it misses 95% of the 100 test anomalies"),
    ],
)
def test_fitness_says_what_is_found_or_missed(found: float, begins: str) -> None:
    text = fitness(manifest(found))
    assert text.startswith(begins)
    assert text.endswith("nor about images from another camera or in other light.")
    assert ("Try" in text) is (found < 0.9)


def test_fitness_names_the_kinds_that_are_missed() -> None:
    text = fitness(manifest(0.6, crack=0.1, hole=0.95, fray=0.4))
    assert "It misses most of: crack (90% missed), fray (60% missed)." in text
    assert "hole" not in text


def test_advice_depends_on_the_recipe_and_on_how_well_the_scores_separate() -> None:
    assert "--recipe features" in fitness(manifest(0.3))
    assert "--recipe" not in fitness(manifest(0.3, recipe="features"))
    assert "--size than 8x8" in fitness(manifest(0.3, recipe="features"))
    assert "--false-alarm-rate" in fitness(manifest(0.3, auroc=0.99))


def test_more_false_alarms_than_promised_are_told() -> None:
    assert "more false alarms than promised" not in fitness(manifest(0.97, alarms=0.08))  # promised are 5 %
    text = fitness(manifest(0.97, alarms=0.2))
    assert text.startswith("Fit for use with care")
    assert "more false alarms than promised" in text


@pytest.mark.parametrize(
    "evaluation",
    [
        None,
        {"anomalies": 0, "detection_rate": None, "auroc": None},
    ],
)
def test_untested_model_is_called_untested(evaluation: dict[str, Any] | None) -> None:
    tested = manifest(0.5).evaluation
    assert tested is not None
    untested = MANIFEST.model_copy(update={"evaluation": evaluation and tested.model_copy(update=evaluation)})
    assert fitness(untested).startswith("Not tested: there were no labelled anomalies")


def test_recalibrated_model_is_untested_at_its_threshold() -> None:
    tested = manifest(0.5).evaluation
    assert tested is not None
    later = tested.model_copy(update={"detection_rate": None, "false_alarm_rate": None, "kinds": {}})
    text = fitness(MANIFEST.model_copy(update={"evaluation": later}))
    assert text.startswith("Not tested at this threshold, which was set later. An anomaly had a higher score")
