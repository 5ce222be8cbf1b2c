"""The charts of the report."""

import numpy as np
import pytest

from training.reporting.charts import score_bins


def test_histogram_bins_hold_scores_of_different_magnitudes() -> None:
    """Scores over pretrained features: normal images near 1, anomalies up to 10,000 times that."""
    normal, anomalies = np.array([0.3, 0.5, 2.0]), np.array([40.0, 9000.0])
    bins = score_bins([normal, anomalies], [4.8])
    assert np.histogram(normal, bins)[0].sum() == 3
    assert np.histogram(anomalies, bins)[0].sum() == 2
    assert np.count_nonzero(np.histogram(normal, bins)[0]) == 3  # on a linear axis, one bin would hold all
    assert bins[1:] / bins[:-1] == pytest.approx(bins[1] / bins[0])


@pytest.mark.parametrize("scores", [[0.0], [0.0, 0.5, 1.0]])
def test_histogram_bins_are_even_if_scores_are_zero(scores: list[float]) -> None:
    bins = score_bins([np.array(scores)], [0.0])
    assert np.diff(bins) == pytest.approx(bins[1] - bins[0])
    assert np.histogram(scores, bins)[0].sum() == len(scores)


def test_histogram_bins_hold_the_threshold() -> None:
    assert score_bins([np.array([1.0])], [10.0])[-1] > 10
