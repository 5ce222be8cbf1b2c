"""Sandbox of a decode process: a compromised decoder cannot reach files, TCP ports and other processes.

Decoders are C code, and image files can exploit their faults. The code that such a file runs has the image, the shared
memory and the socket to the service. Landlock does not restrict UDP and Unix sockets with a path.

Source: Linux, Documentation/userspace-api/landlock.rst. Landlock needs no privileges and works in containers.
"""

import ctypes
import os
import sys
from typing import Final

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # identical on all architectures that PyTorch supports
_VERSION: Final = 1
_NO_NEW_PRIVILEGES: Final = 38
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}  # version of Landlock → number of rights on files from then on
_TCP_VERSION, _TCP = 4, 0b11  # to bind and to connect
_SCOPE_VERSION, _SCOPE = 6, 0b11  # abstract Unix sockets and signals


class _Ruleset(ctypes.Structure):
    """``struct landlock_ruleset_attr``: the rights that are denied. No rule grants an exception."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scope", ctypes.c_uint64))


def landlock_version() -> int:
    """The version of the kernel's Landlock; 0 if it has none, or does not let this process use it."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, _VERSION)))


def confine() -> None:
    """Denies all rights that the kernel's Landlock knows to this thread and to threads that it starts.

    Open files stay usable. Does nothing if the kernel has no Landlock.

    Raises:
        OSError: the kernel refuses.
    """
    version = landlock_version()
    if not version:
        return
    rights = _FILE_RIGHTS[max(known for known in _FILE_RIGHTS if known <= version)]
    denied = _Ruleset(
        files=2**rights - 1,
        network=_TCP if version >= _TCP_VERSION else 0,
        scope=_SCOPE if version >= _SCOPE_VERSION else 0,
    )
    libc = _libc()
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(denied), ctypes.sizeof(denied), 0)
    _require(ruleset >= 0)
    try:
        _require(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0)
        _require(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _require(succeeded: bool) -> None:
    if not succeeded:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
