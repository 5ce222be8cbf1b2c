"""Trials: a version of a model is loaded and run in a child process first, with limits of time and memory.

TorchScript is code. That of a version without a trusted signature can run for ever or take all memory, and a thread
that runs it cannot be stopped. A process can. Only a version that passed its trial is loaded into the service.

Starting a process that imports torch takes seconds. So a process is forked off the service when it starts, before there
are threads and models: the *nursery*. It waits for requests and forks a child for each trial, which takes milliseconds.
Each child has a socket for its result; the nursery reports there how a child died without a result.

A trial is no sandbox: the child has the rights of the service. It protects from models that are broken or too large,
and from code that only wastes time and memory. Signatures protect from code that does harm.
"""

import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import torch

from app.inference.bundles.bundle import MODEL_FILE, Bundle, last_line, load_bundle
from app.inference.errors import BundleRejected
from app.inference.serving.warm_up import SMALL_BATCH, warm_up

SHIPPED: Final = frozenset({"a9da35861ea011014cdd0ace784e1e226d83902f0a61d72da6b3af9a00ecf762"})
"""SHA-256 of the manifests that ship with this program: their checksums make them as trusted as its code."""

_MEMORY_BYTES: Final = 2**30  # for a forward pass of a large batch
_MEMORY_PER_FILE_BYTE: Final = 4  # the archive, its weights, and their optimised forms
_MARGIN_S: Final = 5.0  # for the report that a child has died
_IDLE_S, _BUSY_S = 2.0, 0.05  # between two looks at the children, and at the service
_MESSAGE_BYTES: Final = 65_536
_KILLED_FIRST: Final = b"1000"  # the system's highest score: if memory runs out, it kills the child before the service


class Trials:
    """Tries versions in child processes.

    Args:
        seconds: the most that a trial may take.
        max_batch: the largest batch that scoring uses; 0: chosen by the model's speed.
        shared: a folder in which the processes of a service tell each other which versions passed; None: they do not.
            Only the service may write to it.
    """

    def __init__(self, *, seconds: float, max_batch: int, shared: Path | None = None) -> None:
        self._seconds = seconds
        self._max_batch = max_batch
        self._shared = shared
        self._passed = set(SHIPPED)
        self._lock = threading.Lock()
        self._nursery: socket.socket | None = None
        self._closed = False

    def start(self) -> None:
        """Forks the nursery. To be called before this process has threads that use torch."""
        with self._lock:
            if self._nursery is None:
                self._nursery = _fork_nursery()

    def require(self, directory: Path, digest: str) -> None:
        """Returns once a version has passed its trial. Blocks, at most for the time limit and a few seconds.

        Args:
            directory: ``<store>/<name>/<version>``.
            digest: SHA-256 of its manifest, as hex digits; it stands for all files of the version.

        Raises:
            BundleRejected: it failed; the text gives the reason.
            OSError: it could not be tried.
        """
        if digest in self._passed or (self._shared is not None and (self._shared / digest).exists()):
            return
        self._interpret(self._try(directory, digest))
        self._passed.add(digest)
        if self._shared is not None:
            with suppress(OSError):
                self._shared.mkdir(parents=True, exist_ok=True)
                (self._shared / digest).touch()

    def close(self) -> None:
        """Ends the nursery and running trials."""
        with self._lock:
            self._closed = True
            if self._nursery is not None:
                self._nursery.close()
                self._nursery = None

    def _try(self, directory: Path, digest: str) -> dict[str, Any]:
        """The result of a trial."""
        request = {
            "directory": os.path.abspath(directory),  # noqa: PTH100  resolve() would follow links
            "digest": digest,
            "max_batch": min(self._max_batch, SMALL_BATCH),
            "seconds": self._seconds,
        }
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._send(json.dumps(request).encode(), theirs)
            ours.settimeout(self._seconds + _MARGIN_S)
            try:
                answer = ours.recv(_MESSAGE_BYTES)
            except TimeoutError:
                answer = b""
        result: dict[str, Any] = json.loads(answer or b'{"died": 0}')
        return result

    def _send(self, request: bytes, result: socket.socket) -> None:
        """Sends a request to the nursery, which is forked again if it has died."""
        with self._lock:
            if self._closed:
                raise OSError("the service is shutting down")
            for attempt in range(2):
                if self._nursery is None:
                    self._nursery = _fork_nursery()
                try:
                    socket.send_fds(self._nursery, [request], [result.fileno()])
                    if self._nursery.recv(1):
                        return
                except OSError:
                    if attempt:
                        raise
                self._nursery.close()
                self._nursery = None
        raise OSError("the process that tries models has ended")

    def _interpret(self, result: dict[str, Any]) -> None:
        if result.get("passed"):
            return
        if "refused" in result:
            raise BundleRejected(str(result["refused"]))
        died = result.get("died")
        if died == signal.SIGALRM:
            raise BundleRejected(f"{MODEL_FILE} did not load and score a few images within {self._seconds:g} s")
        if died in (0, signal.SIGKILL, signal.SIGTERM):  # not by itself: out of memory, or the service is stopping
            raise OSError("its trial was ended from outside; the machine may be out of memory")
        raise BundleRejected(f"{MODEL_FILE} ended the process that tried it, with signal {died}")


def _fork_nursery() -> socket.socket:
    """Forks the nursery and returns the socket for requests. It ends when that is closed, or its parent ends."""
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    with warnings.catch_warnings():
        # Python warns of forks in processes with threads. This is done before there are any that hold locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            _become_nursery(theirs, parent)
        finally:
            os._exit(1)
    theirs.close()
    return ours


def _become_nursery(requests: socket.socket, parent: int) -> NoReturn:
    """Forks a child for each request, and reports those that died."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the service, which then closes the socket
    _keep_open(requests.fileno())
    torch.set_num_threads(1)
    gc.freeze()
    children: dict[int, socket.socket] = {}
    while os.getppid() == parent:
        _reap(children)
        if select.select([requests], [], [], _BUSY_S if children else _IDLE_S)[0]:
            message, descriptors, *_ = socket.recv_fds(requests, _MESSAGE_BYTES, 1)
            if not message:
                break
            result = socket.socket(fileno=descriptors[0])
            child = os.fork()
            if child == 0:
                requests.close()
                for other in children.values():
                    other.close()
                _try_here(result, **json.loads(message))
            children[child] = result
            requests.send(b".")
    for child in children:
        os.kill(child, signal.SIGKILL)
    os._exit(0)


def _keep_open(descriptor: int) -> None:
    """Closes all files of the service but one, and detaches from its terminal: nothing is printed or read here."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    kept = descriptor
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _reap(children: dict[int, socket.socket]) -> None:
    """Reports how children died. One that has sent its result is not waited for by anybody."""
    for child in list(children):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            result = children.pop(child)
            with suppress(OSError):
                result.send(json.dumps({"died": os.WTERMSIG(status) if os.WIFSIGNALED(status) else -1}).encode())
            result.close()


def _try_here(result: socket.socket, directory: str, digest: str, max_batch: int, seconds: float) -> NoReturn:
    """Tries a version in this process, sends the result, and ends the process."""
    signal.setitimer(signal.ITIMER_REAL, seconds)  # its signal ends the process, whatever it is doing
    answer: dict[str, Any]
    try:
        allowed = _limit_memory(Path(directory))
        _run(Path(directory), digest, max_batch)
        answer = {"passed": True}
    except MemoryError:
        answer = {"refused": _too_large(allowed)}
    except Exception as error:
        text = str(error)
        if "allocate memory" in text:  # torch raises RuntimeError
            answer = {"refused": _too_large(allowed)}
        elif isinstance(error, BundleRejected):
            answer = {"refused": text}
        else:
            answer = {"refused": f"{MODEL_FILE} fails when it is tried: {last_line(error)}"}
    with suppress(OSError):
        result.send(json.dumps(answer).encode())
    os._exit(0)


def _run(directory: Path, digest: str, max_batch: int) -> Bundle:
    def require_same(_: Path, found: str) -> None:
        if found != digest:
            raise BundleRejected("manifest.json was changed while the version was loaded")

    bundle = load_bundle(directory, trial=require_same)
    warm_up(bundle, max_batch)
    return bundle


def _limit_memory(directory: Path) -> int:
    """Limits the memory that this process may still take, where the system can, and returns the limit in bytes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        size = min((directory / MODEL_FILE).lstat().st_size, _MEMORY_BYTES)
    except OSError:
        size = 0  # loading reports it
    allowed = _MEMORY_BYTES + _MEMORY_PER_FILE_BYTE * size
    if sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_bytes(_KILLED_FIRST)
        # Not the address space: libraries map gigabytes of it. This counts what a process can write to and only it.
        data = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
        limit = int(data.split()[1]) * 1024 + allowed
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return allowed


def _too_large(allowed: int) -> str:
    return f"{MODEL_FILE} takes more than {allowed // 2**20:,} MiB of memory to load and to score a batch of images"
