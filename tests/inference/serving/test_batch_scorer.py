"""The outcomes of a batch, given the figures that the model returns."""

import pytest
import torch

from app.inference.bundles.bundle import BatchScores, Bundle
from app.inference.errors import NonFiniteScore
from app.inference.serving.batch_scorer import BatchOutcome, BatchScorer, Rejected, Scored
from tests.support import encode, gradient

PNG = encode(gradient())


def outcomes_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, *, mse: list[float], score: list[float]
) -> list[BatchOutcome]:
    """The outcomes of images for which the model returns these figures."""
    scores = BatchScores(torch.zeros(len(mse), *bundle.spec.shape), mse, score)
    with monkeypatch.context() as patched:
        patched.setattr(Bundle, "score_batch", lambda *_: scores)
        return BatchScorer(bundle, max_pixels=10**6).score([PNG] * len(mse), [False] * len(mse), [0.0] * len(mse))


def test_scores_outside_the_calibration_scores_have_a_warning(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    calibration = bundle.calibration.scores
    scores = [calibration[0] / 2, calibration[0], calibration[-1], calibration[-1] * 2]
    outcomes = outcomes_for(bundle, monkeypatch, mse=[0.1] * 4, score=scores)
    warnings = [[warning for warning in each.warnings if "calibration" in warning] for each in _scored(outcomes)]
    assert [" ".join(each).partition("that of every")[0] for each in warnings] == [
        "the score lies below ",
        "",
        "",
        "the score lies above ",
    ]
    assert [each.p_value for each in _scored(outcomes)] == [bundle.calibration.p_value(score) for score in scores]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("figure", ["mse", "score"])
def test_non_finite_figure_rejects_only_its_image(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, figure: str, value: float
) -> None:
    figures = {"mse": [0.1, 0.2, 0.3], "score": [0.1, 0.2, 0.3]}
    figures[figure][1] = value
    first, second, third = outcomes_for(bundle, monkeypatch, **figures)
    assert isinstance(second, Rejected)
    assert isinstance(second.reason, NonFiniteScore)
    assert str(value) in str(second.reason)
    assert [each.mse for each in _scored([first, third])] == [0.1, 0.3]
    assert [each.row for each in _scored([first, third])] == [0, 2]


def _scored(outcomes: list[BatchOutcome]) -> list[Scored]:
    assert all(isinstance(each, Scored) for each in outcomes), outcomes
    return [each for each in outcomes if isinstance(each, Scored)]
