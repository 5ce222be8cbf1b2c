"""The memory for requests: limits of control groups, and who may take how much."""

import os
from pathlib import Path

import pytest

from app.inference.errors import Overloaded, TooMuchMemory
from app.inference.serving.memory import Memory, available_bytes, request_bytes, resident_bytes
from tests.process_memory import resident_bytes as resident_bytes_of

MIB = 2**20
GIB = 2**30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # Version 2, in a container: its own group is the root.
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": str(GIB)}, GIB),
        # Version 2, on a host: the smallest limit on the way up.
        (
            {
                "proc/self/cgroup": "0::/system.slice/anomaly.service",
                "sys/fs/cgroup/system.slice/anomaly.service/memory.max": "max",
                "sys/fs/cgroup/system.slice/memory.max": str(GIB // 2),
            },
            GIB // 2,
        ),
        # Version 1, in a container: the path is the host's.
        (
            {
                "proc/self/cgroup": "5:cpu:/docker/ab\n4:memory:/docker/ab\n0::/docker/ab",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(GIB),
            },
            GIB,
        ),
        (
            {
                "proc/self/cgroup": "4:hugetlb,memory:/docker/ab",
                "sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes": str(GIB // 4),
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            GIB // 4,
        ),
    ],
    ids=["v2 container", "v2 host", "v1 container", "v1 host"],
)
def test_limit_of_the_control_group(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert available_bytes(tree(tmp_path, files)) == expected


@pytest.mark.parametrize(
    "files", [{}, {"proc/self/cgroup": "0::/"}, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"}]
)
def test_without_a_limit_it_is_the_memory_of_the_machine(tmp_path: Path, files: dict[str, str]) -> None:
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert available_bytes(tree(tmp_path, files)) == pytest.approx(int(total.split()[1]) * 1024, rel=0.02)


def test_resident_memory_leaves_the_rest_to_requests() -> None:
    assert resident_bytes() >= resident_bytes_of_this_process() * 0.9
    assert request_bytes(GIB, 300 * MIB) == GIB * 15 // 16 - 300 * MIB


def resident_bytes_of_this_process() -> int:

    return resident_bytes_of(os.getpid())


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
