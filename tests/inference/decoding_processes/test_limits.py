"""How many images are decoded at once."""

import pytest

from app.inference.decoding_processes.limits import most_processes

GIB = 2**30


@pytest.mark.parametrize(
    ("cores", "memory", "expected"),
    [(1, GIB, 2), (0, GIB // 8, 2), (6, 8 * GIB, 6), (64, 2 * GIB, 4)],
    ids=["one core", "little memory", "cores", "memory"],
)
def test_processes_scale_with_cores_within_the_memory(cores: int, memory: int, expected: int) -> None:
    assert most_processes(cores, memory) == expected
