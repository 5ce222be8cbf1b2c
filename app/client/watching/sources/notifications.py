"""What tells that something happened in a folder: the operating system, or a clock where it cannot know."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

_BATCH_MS: Final = 50  # notifications are collected for so long
# Their servers do not tell this machine what others write.
_NETWORK_TYPES: Final = {
    "9p", "afs", "ceph", "cifs", "davfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "ncpfs", "nfs",
    "nfs4", "smb3", "smbfs", "vboxsf", "virtiofs", "fuse.vmhgfs-fuse", "fuse.gvfsd-fuse",
}  # fmt: skip


async def changed_paths(folder: Path, stop: asyncio.Event) -> AsyncIterator[set[Path]]:
    """Yields paths below a folder that were written, created or removed, until ``stop`` is set.

    Raises:
        ModuleNotFoundError: watchfiles is not installed.
        OSError: the folder cannot be watched.
    """
    from watchfiles import awatch  # noqa: PLC0415  not needed for polling

    notifications = awatch(folder, watch_filter=None, debounce=_BATCH_MS, step=_BATCH_MS, stop_event=stop)
    async for changes in notifications:
        yield {Path(path) for _, path in changes}


def is_on_network(folder: Path) -> bool:
    """Whether a folder is on a network share, as far as Linux tells."""
    if sys.platform != "linux":
        return False
    real = os.path.realpath(folder)
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    below = [
        (len(point), fields[fields.index("-") + 1])
        for fields in mounts
        if real == (point := _unescaped(fields[4])) or real.startswith(point.rstrip("/") + "/")
    ]
    return bool(below) and max(below)[1] in _NETWORK_TYPES


def _unescaped(path: str) -> str:
    return path.encode("latin-1", "surrogateescape").decode("unicode_escape") if "\\" in path else path
