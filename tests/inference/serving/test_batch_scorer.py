"""What is made of a batch's scores: judged against the calibration, or refused."""

import pytest
import torch

from app.inference.bundles.bundle import BatchScores, Bundle
from app.inference.bundles.store import ModelStore
from app.inference.errors import NonFiniteScore
from app.inference.serving.batch_scorer import BatchOutcome, BatchScorer, Rejected, Scored
from tests.support import encode, gradient, make_bundle

PNG = encode(gradient())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    store = ModelStore(tmp_path_factory.mktemp("store"))
    store.publish(*make_bundle("a"))
    return store.load("a", store.current("a"))


def judged(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, *, mse: list[float], score: list[float]
) -> list[BatchOutcome]:
    """Images that the model would give these figures."""
    scores = BatchScores(torch.zeros(len(mse), *bundle.spec.shape), mse, score)
    with monkeypatch.context() as patched:
        patched.setattr(Bundle, "score_batch", lambda *_: scores)
        return BatchScorer(bundle, max_pixels=10**6).score([PNG] * len(mse), [False] * len(mse), [0.0] * len(mse))


def test_scores_outside_the_calibration_are_told_of(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    known = bundle.calibration.scores
    scores = [known[0] / 2, known[0], known[-1], known[-1] * 2]
    outcomes = judged(bundle, monkeypatch, mse=[0.1] * 4, score=scores)
    told = [[warning for warning in each.warnings if "calibration" in warning] for each in _scored(outcomes)]
    assert [" ".join(warnings).partition("that of every")[0] for warnings in told] == [
        "the score lies below ",
        "",
        "",
        "the score lies above ",
    ]
    assert [each.p_value for each in _scored(outcomes)] == [bundle.calibration.p_value(score) for score in scores]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("figure", ["mse", "score"])
def test_a_figure_that_is_no_number_refuses_its_image_alone(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, figure: str, broken: float
) -> None:
    figures = {"mse": [0.1, 0.2, 0.3], "score": [0.1, 0.2, 0.3]}
    figures[figure][1] = broken
    first, second, third = judged(bundle, monkeypatch, **figures)
    assert isinstance(second, Rejected)
    assert isinstance(second.reason, NonFiniteScore)
    assert str(broken) in str(second.reason)
    assert [each.mse for each in _scored([first, third])] == [0.1, 0.3]
    assert [each.row for each in _scored([first, third])] == [0, 2]


def _scored(outcomes: list[BatchOutcome]) -> list[Scored]:
    assert all(isinstance(each, Scored) for each in outcomes), outcomes
    return [each for each in outcomes if isinstance(each, Scored)]
