"""What this process may use of its machine: memory and processor time, limited by control groups in a container."""

import ctypes
import math
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/")


def available_bytes(root: Path = _ROOT) -> int:
    """The memory that this process may use: the smallest limit of its control groups, else that of the machine.

    Args:
        root: of the file system.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (memory.max), cgroup-v1/memory.rst (memory.limit_in_bytes).
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    texts = _limits(root, "memory.max", "memory", "memory.limit_in_bytes")
    return min([machine, *(int(text) for text in texts if text.isdigit())])  # else "max"


def usable_cores(root: Path = _ROOT) -> int:
    """The number of cores that this process may keep busy, at least 1.

    It is the smallest quota of its control groups, rounded up, or the number of cores that it may run on.

    Args:
        root: of the file system.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max), scheduler/sched-bwc.rst (cpu.cfs_quota_us).
    """
    # Not everywhere can a process be bound to cores.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [*_quotas(root)]
    return max(1, min([cores, *map(math.ceil, quotas)]))


def _quotas(root: Path) -> Iterator[float]:
    """Cores per control group that limits them."""
    for text in _limits(root, "cpu.max", "cpu", "cpu.cfs_quota_us", "cpu.cfs_period_us"):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):  # else "max", or -1
            yield int(quota) / int(period)


def _limits(root: Path, name: str, controller: str, *names: str) -> Iterator[str]:
    """The limits of the process's control groups and of all groups around these.

    Args:
        root: of the file system.
        name: of the file in version 2 of control groups.
        controller: its name in version 1.
        names: of the files in version 1, whose texts are joined by spaces.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        files: tuple[str, ...]
        if not controllers:
            mount, files = root / "sys/fs/cgroup", (name,)
        elif controller in controllers.split(","):
            mount, files = root / "sys/fs/cgroup" / controller, names
        else:
            continue
        group = mount / path.lstrip("/")
        # In a container the path can be the host's, which is not visible; the container's own limit is at the mount.
        for folder in (group, *group.parents):
            if folder == mount.parent:
                break
            with suppress(OSError):
                yield " ".join((folder / file).read_text().strip() for file in files)


def resident_bytes() -> int:
    """The memory of this process, and what its children do not share with it or with others.

    What was freed is returned to the system first, or it would count for ever.
    """
    with suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    return _own_bytes() + sum(map(_private_bytes, _children()))


def _own_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux, or no file can be opened: the peak
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _children() -> list[str]:
    try:
        tasks = list(Path("/proc/self/task").iterdir())
        return [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def _private_bytes(process: str) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:")), 0)
