"""The memory of a process, on Linux."""

from pathlib import Path


def resident_bytes(process: int | str) -> int:
    """The memory that a process uses now."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096


def peak_bytes(process: int | str) -> int:
    """The most memory that a process has used since :func:`forget_peak`."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def forget_peak(process: int | str) -> None:
    """Resets :func:`peak_bytes`."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
