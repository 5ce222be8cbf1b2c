"""The models that a running service holds: loaded on first use, replaced when CURRENT changes.

A replacement is verified and warmed beside the model that serves, then swapped in one assignment. One that
fails is refused and remembered, and the old model goes on.
"""

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from app.inference.engine import Engine, ServedModel
from app.inference.errors import InferenceError, ModelUnavailable, UnknownModel
from app.inference.manifest import Manifest
from app.inference.store import CURRENT_FILE, ModelStore

POLL_S: Final = 1.0

_log = structlog.get_logger(__name__)

# Files that change when a version is switched or repaired in place: (name, size, modification time).
_Footprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Refusal:
    """Why the version that CURRENT names is not the one that serves."""

    model: str
    reason: str


class ModelRegistry:
    """Loads models through the engine and keeps them current.

    Args:
        store: where versions lie.
        engine: warms and runs what is loaded.
        default: the model of requests that name none.
        on_change: called after every load, swap or refusal.
    """

    def __init__(
        self,
        store: ModelStore,
        engine: Engine,
        default: str,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = store
        self.default = default
        self.starting = True
        self._engine = engine
        self._on_change = on_change
        self._served: dict[str, ServedModel] = {}
        self._refused: dict[str, Refusal] = {}
        self._seen: dict[str, _Footprint] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    @property
    def served(self) -> list[ServedModel]:
        """The models in memory, by name."""
        return [self._served[name] for name in sorted(self._served)]

    @property
    def refused(self) -> list[Refusal]:
        """What was refused and has not been mended since, by name."""
        return [self._refused[name] for name in sorted(self._refused)]

    def default_served(self) -> ServedModel | None:
        """The default model, if it is loaded."""
        return self._served.get(self.default)

    def why_unavailable(self, name: str) -> str:
        """One line for people who wait for a model."""
        if refusal := self._refused.get(name):
            return refusal.reason
        return "the model is being loaded" if self.starting else f"the store has no model named {name!r}"

    async def get(self, name: str | None) -> ServedModel:
        """The model of that name, loading it on first use; the default one for None.

        Raises:
            UnknownModel: the store has no such model.
            ModelUnavailable: it is not loaded yet, or was refused.
        """
        wanted = self.default if name is None else name
        if (model := self._served.get(wanted)) is not None:
            return model
        if self.starting and wanted == self.default:
            raise ModelUnavailable("the model is being loaded")
        try:
            await self._refresh(wanted)
        except UnknownModel:
            if wanted == self.default:
                raise ModelUnavailable(self.why_unavailable(wanted)) from None
            raise
        if (model := self._served.get(wanted)) is None:
            raise ModelUnavailable(self.why_unavailable(wanted))
        return model

    def card(self, name: str) -> Manifest:
        """The card of what serves under that name, or of what CURRENT names if it is not in memory.

        Raises:
            UnknownModel, BundleRejected: as :meth:`ModelStore.manifest`.
        """
        if (model := self._served.get(name)) is not None:
            return model.bundle.manifest
        return self.store.manifest(name)

    async def watch(self) -> None:
        """Loads the default model, then follows the store until cancelled."""
        try:
            await self._refresh_quietly(self.default)
        finally:
            self.starting = False
        while True:
            await asyncio.sleep(POLL_S)
            for name in {self.default, *self._served, *self._refused}:
                await self._refresh_quietly(name)

    async def _refresh_quietly(self, name: str) -> None:
        """Refusals are remembered already; whatever else happens must not end the watch."""
        try:
            await self._refresh(name)
        except UnknownModel:
            return
        except Exception as error:  # a full disk, no memory for a large model: the next round tries again
            self._refuse(name, f"{name}: cannot be loaded: {error}")
            _log.exception("model refresh failed", model=name)

    async def _refresh(self, name: str) -> None:
        """Brings one model up to what the store says, if anything there has changed."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            footprint = _footprint(self.store.root / name)
            if footprint is not None and self._seen.get(name) == footprint:
                return
            try:
                await self._load_current(name)
            except UnknownModel:
                self._locks.pop(name, None)
                if name in self._served:
                    self._refuse(name, f"{name}: the model has left the store; its last version still serves")
                raise
            except InferenceError as error:
                self._refuse(name, str(error))
            if footprint is not None:
                self._seen[name] = footprint

    async def _load_current(self, name: str) -> None:
        version = self.store.current(name)
        serving = self._served.get(name)
        if serving is not None and serving.bundle.manifest.version == version:
            self._mended(name)
            return
        bundle = await asyncio.to_thread(self.store.load, name, version)
        self._served[name] = await self._engine.serve(bundle)
        self._mended(name)
        # Full collections over torch's many objects stall every request for 100 ms; loaded models stay anyway.
        gc.collect()
        gc.freeze()
        _log.info("model loaded", model=name, version=version, replaced=serving and serving.bundle.manifest.version)

    def _mended(self, name: str) -> None:
        self._refused.pop(name, None)
        self._on_change()

    def _refuse(self, name: str, reason: str) -> None:
        if self._refused.get(name) != Refusal(name, reason):
            self._refused[name] = Refusal(name, reason)
            _log.error("model refused", model=name, reason=reason)
            self._on_change()


def _footprint(model: Path) -> _Footprint | None:
    """None where CURRENT cannot be read: then there is nothing to remember."""
    try:
        version = (model / CURRENT_FILE).read_text().strip()[:80]
        paths = [path for path in (model / version).rglob("*") if path.is_file()]
        files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    except (OSError, ValueError):
        return None
    return ((version, 0, 0), *sorted(files))
