"""What is out of scope is an anomaly, whatever the threshold."""

import math

import pytest

from app.inference.decisions.scope import is_out_of_scope


@pytest.mark.parametrize(
    ("scope", "is_anomaly", "expected"),
    [
        (1.01, True, True),
        (1.0, True, False),
        (0.0, True, False),
        (50.0, False, False),
        (None, True, False),
        (None, False, False),
        (math.nan, True, False),
    ],
)
def test_out_of_scope_is_above_one_and_an_anomaly(scope: float | None, is_anomaly: bool, expected: bool) -> None:
    assert is_out_of_scope(scope, is_anomaly=is_anomaly) is expected
