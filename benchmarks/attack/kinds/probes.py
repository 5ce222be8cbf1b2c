"""Attacks with a ``model.pt`` that misbehaves when it is tried, in a store without required signatures."""

import asyncio
import io
from pathlib import Path
from typing import Final

import torch

from app.inference.bundles.bundle import MANIFEST_FILE, MODEL_FILE, file_record
from app.inference.bundles.manifest import Manifest
from benchmarks.attack.attack import Arena, Attack, Findings, Settings
from benchmarks.attack.kinds.store_files import add_copy, scores

_HANGING: Final = "hanging"
_HOARDING: Final = "hoarding"
_FINE: Final = "fine"

_LOAD_S: Final = 5  # after which a version that does not end is given up
_DEADLINE_S: Final = 25  # by which that is known, and other models are loaded
_IDLE_SHARE: Final = 0.5  # of a core, with the honest client


class _Hanging(torch.nn.Module):
    """Computes without an end."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        while images.numel() > 0:
            images = images + 0
        return images, images, images


class _Hoarding(torch.nn.Module):
    """Allocates 12 GB."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean = torch.ones([3_000_000_000]).mean() + images.flatten(1).mean(1)
        return images, mean, mean


def _replace_weights(folder: Path, module: torch.nn.Module) -> None:
    """Puts other code into a version, and its checksum into the manifest, as anyone can who writes to the store."""
    archive = io.BytesIO()
    torch.jit.save(torch.jit.script(module), archive)
    content = archive.getvalue()
    weights, sealed = folder / MODEL_FILE, folder / MANIFEST_FILE
    weights.unlink()
    weights.write_bytes(content)
    manifest = Manifest.from_bytes(sealed.read_bytes())
    files = {**manifest.files, MODEL_FILE: file_record(content)}
    sealed.write_bytes(manifest.model_copy(update={"files": files}).to_bytes())


def _with_evil_models(folder: Path) -> Settings:
    store = folder / "store"
    _replace_weights(add_copy(store, _HANGING), _Hanging())
    _replace_weights(add_copy(store, _HOARDING), _Hoarding())
    for number in range(4):
        add_copy(store, f"{_FINE}-{number}")
    return {"load_timeout_s": _LOAD_S}


async def _hang(arena: Arena) -> Findings:
    """A model whose first forward pass never ends, while other models are asked for."""
    findings = Findings()
    hanging = asyncio.create_task(scores(arena.target, _HANGING, _DEADLINE_S))
    await asyncio.sleep(2)
    loaded = [await scores(arena.target, f"{_FINE}-{number}", _DEADLINE_S) for number in range(2)]
    findings.require(all(loaded), "another model could not be loaded beside the one that hangs")
    findings.require(not await hanging, "the model that hangs gave an answer")
    before = arena.target.cpu_seconds()
    await asyncio.sleep(2)
    findings.require(
        arena.target.cpu_seconds() - before < 2 * _IDLE_SHARE, f"it still computes {_DEADLINE_S} s after the request"
    )
    return findings


async def _hoard(arena: Arena) -> Findings:
    """A model whose first forward pass allocates 12 GB."""
    findings = Findings()
    findings.require(not await scores(arena.target, _HOARDING, _DEADLINE_S), "the model that hoards gave an answer")
    findings.require(
        await scores(arena.target, f"{_FINE}-2", _DEADLINE_S), "another model could not be loaded after it"
    )
    return findings


ATTACKS: Final = (
    Attack("probe-hangs", _hang, _with_evil_models),
    Attack("probe-hoards", _hoard, _with_evil_models),
)
