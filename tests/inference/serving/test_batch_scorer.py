"""The outcomes of a batch, given the figures that the model returns."""

import zlib

import pytest
import torch

from app.inference.bundles.bundle import BatchScores, Bundle
from app.inference.errors import NonFiniteScore
from app.inference.images.codecs.plain_png import seems_plain
from app.inference.serving.batch_scorer import BatchOutcome, BatchScorer, Large, Options, Rejected, Scored
from tests import hostile
from tests.support import encode, gradient

PNG = encode(gradient())
OPTIONS = Options(encode=False, diagnose=False, since=0)


def outcomes_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, *, mse: list[float], score: list[float]
) -> list[BatchOutcome]:
    """The outcomes of images for which the model returns these figures."""
    scores = BatchScores(torch.zeros(len(mse), *bundle.spec.shape), mse, score)
    with monkeypatch.context() as patched:
        patched.setattr(Bundle, "score_batch", lambda *_: scores)
        return BatchScorer(bundle, max_pixels=10**6, light=True).score([PNG] * len(mse), [OPTIONS] * len(mse))


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


def test_only_plain_png_files_are_decoded_on_the_event_loop(bundle: Bundle) -> None:
    """Small files of compressed profiles, decoded there, made /health wait for 100 ms."""
    profile = hostile.chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2**20 - 9), 9))
    slow = hostile.png(8, 8, *[profile] * 50)
    gamma = hostile.png(8, 8, hostile.chunk(b"gAMA", bytes(4)))
    damaged = PNG[:-20] + bytes([PNG[-20] ^ 1]) + PNG[-19:]
    files = [PNG, slow, gamma, damaged, encode(gradient(), "JPEG")]
    scorer = BatchScorer(bundle, max_pixels=10**6, light=True)
    outcomes = scorer.score(files, [OPTIONS] * len(files), only_plain=True)
    assert [type(each) for each in outcomes] == [Scored, Large, Large, Large, Large]
    assert [seems_plain(file) for file in files] == [True, False, False, True, False]


def test_small_files_that_take_long_are_decoded_where_they_can_be_stopped(bundle: Bundle) -> None:
    file = encode(gradient(1000, 1000), "JPEG2000", quality_mode="rates", quality_layers=[100])
    hidden = hostile.corpus()["avif-large-frame"]  # announces 8 × 8 pixels
    assert max(len(file), len(hidden)) < 64 * 1024
    scorer = BatchScorer(bundle, max_pixels=10**7, light=True)
    outcomes = scorer.score([file, hidden], [OPTIONS] * 2)
    assert [type(each) for each in outcomes] == [Large, Large]


def _scored(outcomes: list[BatchOutcome]) -> list[Scored]:
    assert all(isinstance(each, Scored) for each in outcomes), outcomes
    return [each for each in outcomes if isinstance(each, Scored)]
