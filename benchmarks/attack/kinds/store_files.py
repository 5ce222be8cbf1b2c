"""Attacks by someone who can only write to the model store."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.inference.bundles.bundle import MANIFEST_FILE, MODEL_FILE
from app.inference.bundles.manifest import Manifest
from app.inference.bundles.store import CURRENT_FILE
from benchmarks.attack.attack import Arena, Attack, Findings, Settings
from benchmarks.attack.target import Target
from benchmarks.attack.wire import get, post
from benchmarks.reliability import OK, ROOT, image

MODEL: Final = "mnist-5"
OTHER: Final = "other"

_SECRET: Final = "key-that-only-the-service-may-read"  # noqa: S105  not used for anything
_SPARSE_BYTES: Final = 3 * 2**30
_POLL_S: Final = 3.0  # the service looks at CURRENT every second
_LIST_BYTES: Final = 400_000

_PUBLISH: Final = """
import sys
from pathlib import Path
from app.inference.bundles.store import ModelStore, new_version
from benchmarks.attack.kinds.store_files import shipped_manifest

store = Path(sys.argv[1])
folder, manifest = shipped_manifest(store)
files = {name: (folder / name).read_bytes() for name in manifest.files}
ModelStore(store).publish(manifest.model_copy(update={"version": new_version()}), files)
"""


def shipped_manifest(store: Path) -> tuple[Path, Manifest]:
    """The folder of the shipped version and its manifest."""
    folder = store / MODEL / (store / MODEL / CURRENT_FILE).read_text().strip()
    return folder, Manifest.from_bytes((folder / MANIFEST_FILE).read_bytes())


def add_copy(store: Path, name: str) -> Path:
    """Adds the shipped version under another name; returns its folder. Nothing is verified, so this is fast."""
    shipped, manifest = shipped_manifest(store)
    folder = store / name / shipped.name
    for file in [each for each in shipped.rglob("*") if each.is_file()]:
        copy = folder / file.relative_to(shipped)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.hardlink_to(file)
    (folder / MANIFEST_FILE).unlink()
    (folder / MANIFEST_FILE).write_bytes(manifest.model_copy(update={"name": name}).to_bytes())
    (store / name / CURRENT_FILE).write_text(f"{shipped.name}\n")
    return folder


async def scores(target: Target, model: str, patience_s: float) -> bool:
    """Whether an image is scored by a model in time."""
    request = post(target, f"/score?include=&model={model}", image(28), "image/png")
    reply = await target.ask(request, patience_s)
    return reply is not None and reply.status == OK


def _with_another_model(folder: Path) -> Settings:
    (folder / "secret").write_text(_SECRET)
    add_copy(folder / "store", OTHER)
    return {}


@contextmanager
def _without(file: Path) -> Iterator[None]:
    """Moves a file away, so that another one can take its place, and brings it back."""
    kept = file.with_name(f"{file.name}.kept")
    file.rename(kept)
    try:
        yield
    finally:
        kept.replace(file)


async def _link_to_secret(arena: Arena) -> Findings:
    """CURRENT as a symbolic link to a file that the service can read."""
    findings = Findings()
    current = arena.store / MODEL / CURRENT_FILE
    with _without(current):
        current.symlink_to(arena.folder / "secret")
        await asyncio.sleep(_POLL_S)
        for path in ("/health", "/models", f"/models/{MODEL}", "/metrics"):
            reply = await arena.target.ask(get(arena.target, path))
            findings.require(reply is not None, f"{path} did not answer")
            findings.require(reply is None or _SECRET.encode() not in reply.body, f"{path} shows the linked file")
        findings.require(_SECRET not in arena.target.log.read_text(), "the log shows the linked file")
    return findings


@contextmanager
def _without_files(arena: Arena) -> Iterator[tuple[Path, Path]]:
    """Takes CURRENT of one model and the weights of another away; yields where they were."""
    current = arena.store / MODEL / CURRENT_FILE
    weights = next((arena.store / OTHER).glob(f"*/{MODEL_FILE}"))
    with _without(current), _without(weights):
        yield current, weights


async def _sparse_files(arena: Arena) -> Findings:
    """CURRENT and the weights of another model as sparse files of 3 GiB."""
    findings = Findings()
    with _without_files(arena) as (current, weights):
        for file in (current, weights):
            with file.open("wb") as sparse:
                sparse.truncate(_SPARSE_BYTES)
        await arena.target.ask(get(arena.target, "/models"), 10)
        findings.require(not await scores(arena.target, OTHER, 20), "weights of 3 GiB of zeros were loaded")
        await asyncio.sleep(_POLL_S)
    return findings


async def _named_pipes(arena: Arena) -> Findings:
    """CURRENT, then the weights of another model, as a FIFO that nobody writes to."""
    findings = Findings()
    with _without_files(arena) as (current, weights):
        os.mkfifo(current)
        os.mkfifo(weights)
        await asyncio.sleep(_POLL_S)
        paths = [f"/models/{MODEL}", "/models"] * 8
        replies = await asyncio.gather(*(arena.target.ask(get(arena.target, path), 10) for path in paths))
        findings.require(None not in replies, f"{replies.count(None)} model cards were not answered in 10 s")
        await scores(arena.target, OTHER, 5)
        findings.require(await scores(arena.target, MODEL, 10), "the loaded model no longer scores")
    return findings


def _publish_again(store: Path, most_bytes: int | None) -> int:
    """Publishes the shipped files as a new version in another process; returns its exit status.

    Args:
        store: the model store.
        most_bytes: of a file (RLIMIT_FSIZE), which stands for a full disk; None: no limit.
    """
    limit = [] if most_bytes is None else ["prlimit", f"--fsize={most_bytes}"]
    command = [*limit, sys.executable, "-c", _PUBLISH, str(store)]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, check=False).returncode  # noqa: S603


async def _publish_on_full_disk(arena: Arena) -> Findings:
    """The disk is full while a version is published, then it has room again."""
    findings = Findings()
    current = arena.store / MODEL / CURRENT_FILE
    before = current.read_text()
    findings.require(await asyncio.to_thread(_publish_again, arena.store, 1000) != 0, "publishing did not fail")
    findings.require(current.read_text() == before, "CURRENT changed although publishing failed")
    findings.require(await scores(arena.target, MODEL, 10), "the version before no longer scores")
    findings.require(await asyncio.to_thread(_publish_again, arena.store, None) == 0, "publishing failed with room")
    findings.require(current.read_text() != before, "CURRENT did not change")
    await asyncio.sleep(_POLL_S)
    reply = await arena.target.ask(get(arena.target, f"/models/{MODEL}"))
    served = json.loads(reply.body)["version"] if reply is not None and reply.status == OK else None
    findings.require(served == current.read_text().strip(), f"version {served} is served after publishing")
    return findings


def _with_300_models(folder: Path) -> Settings:
    for number in range(300):
        add_copy(folder / "store", f"model-{number:03}")
    return {}


async def _list_models(arena: Arena) -> Findings:
    """Two clients that ask for the list of 301 models without a pause."""
    findings, sizes = Findings(), list[int]()

    async def client() -> None:
        for _ in range(arena.pick(20, 2)):
            reply = await arena.target.ask(get(arena.target, "/models"))
            if reply is not None and reply.status == OK:
                sizes.append(len(reply.body))

    await asyncio.gather(client(), client())
    findings.require(bool(sizes), "the list was never answered")
    findings.require(not sizes or max(sizes) <= _LIST_BYTES, f"the list has {max(sizes, default=0):,} bytes")
    return findings


ATTACKS: Final = (
    Attack("store-link", _link_to_secret, _with_another_model),
    Attack("store-sparse", _sparse_files, _with_another_model),
    Attack("store-pipe", _named_pipes, _with_another_model),
    Attack("publish-disk-full", _publish_on_full_disk, _with_another_model),
    Attack("many-models", _list_models, _with_300_models),
)
