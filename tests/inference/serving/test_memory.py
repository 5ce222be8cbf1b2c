"""The memory for requests: who may take how much."""

import pytest

from app.inference.errors import Overloaded, TooMuchMemory
from app.inference.serving.memory import Memory, request_bytes

MIB = 2**20
GIB = 2**30


def test_requests_get_what_libraries_and_models_leave() -> None:
    assert request_bytes(GIB, 300 * MIB) == GIB * 15 // 16 - 300 * MIB


def memory(limit: int = 400) -> Memory:
    created = Memory(10 * MIB)
    assert created.set_limit(limit * MIB)
    return created


def test_one_client_leaves_room_for_another_one() -> None:
    """Requests have 100 MiB. One client alone gets three quarters, a second one three quarters of what is left."""
    budget = memory()
    for amount in (30, 30, 15):
        budget.take("a", amount * MIB)
    with pytest.raises(Overloaded) as refused:
        budget.take("a", MIB)
    assert refused.value.retry_after_s >= 1
    budget.take("b", 10 * MIB)
    budget.take("b", 8 * MIB)
    with pytest.raises(Overloaded):
        budget.take("b", 2 * MIB)
    budget.take("c", MIB)
    budget.give_back("a", 75 * MIB)
    budget.take("b", 40 * MIB)


def test_claims_never_exceed_the_limit_whoever_asks() -> None:
    budget = memory()
    for number in range(1000):
        claim = budget.claim(f"client {number}")
        try:
            for _ in range(5):
                claim.take(MIB)
        except Overloaded:
            pass
        assert budget.requests <= 100 * MIB
    assert budget.requests > 90 * MIB


def test_decoding_leaves_less_for_requests() -> None:
    budget = memory()
    budget.decoding = 390 * MIB
    assert budget.fits(10 * MIB)
    assert not budget.fits(11 * MIB)
    budget.take("a", 5 * MIB)
    with pytest.raises(Overloaded):
        budget.take("b", 6 * MIB)


def test_request_that_can_never_fit_is_refused_for_good() -> None:
    budget = memory()
    with budget.claim("a") as claim:
        claim.take(70 * MIB)
        with pytest.raises(TooMuchMemory, match="more than 75 MiB"):
            claim.take(6 * MIB)
    assert budget.requests == 0


def test_too_small_a_limit_still_serves_the_largest_body() -> None:
    budget = Memory(16 * MIB)
    assert not budget.set_limit(MIB)
    with budget.claim("a") as claim:
        claim.take(2 * 16 * MIB)
