"""Limits of control groups: memory and cores."""

import os
from pathlib import Path

import pytest

from app.inference.machine import available_bytes, resident_bytes, usable_cores
from tests.process_memory import resident_bytes as resident_bytes_of

GIB = 2**30
CORES = len(os.sched_getaffinity(0))


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


def test_resident_memory_is_that_of_the_system() -> None:
    assert resident_bytes() >= resident_bytes_of(os.getpid()) * 0.9


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        (
            {
                "proc/self/cgroup": "0::/kubepods/pod/ab",
                "sys/fs/cgroup/kubepods/pod/ab/cpu.max": "max 100000",
                "sys/fs/cgroup/kubepods/pod/cpu.max": "100000 100000",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/ab\n0::/docker/ab",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            1,
        ),
    ],
    ids=["half a core", "rounded up", "v2 on a host", "v1"],
)
def test_cores_are_those_of_the_control_group(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert usable_cores(tree(tmp_path, files)) == min(cores, CORES)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"},
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": f"{CORES + 5}00000 100000"},
        {
            "proc/self/cgroup": "4:cpu:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    ],
    ids=["no groups", "v2 without a limit", "more than the machine has", "v1 without a limit"],
)
def test_without_a_quota_cores_are_those_of_the_process(tmp_path: Path, files: dict[str, str]) -> None:
    assert usable_cores(tree(tmp_path, files)) == CORES
