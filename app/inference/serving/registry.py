"""The models that a running service holds: loaded on first use, at most so many, replaced when CURRENT changes.

A replacement is verified and warmed beside the model that serves, then swapped in one assignment. One that
fails is refused and remembered, and the old model goes on. Where one model too many is asked for, the one that
was used least recently leaves. What is in use leaves last, and its memory only after its last request.
"""

import asyncio
import gc
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import structlog

from app.inference.bundles.manifest import NAME_PATTERN, VERSION_PATTERN, Manifest
from app.inference.bundles.store import CURRENT_FILE, ModelStore
from app.inference.errors import InferenceError, ModelUnavailable, UnknownModel
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.engine import Engine

POLL_S: Final = 1.0

# A round of the watch looks at every model in memory, and at so many of the refused ones, in turn.
_REFUSED_A_ROUND: Final = 16

# Nothing that was loaded leaves before those who waited for it had their turn.
_STAY_S: Final = 0.05

_log = structlog.get_logger(__name__)

# The version that CURRENT names and, of a refused one, its files: (name, size, modification time).
_Footprint = tuple[str, tuple[tuple[str, int, int], ...]]


@dataclass(frozen=True)
class RefusedVersion:
    """Why the version that CURRENT names is not the one that serves."""

    model: str
    reason: str


class ModelRegistry:
    """Loads models through the engine and keeps them current.

    Args:
        store: where versions lie.
        engine: warms and runs what is loaded.
        default: the model of requests that name none; loaded at the start, and it stays.
        max_loaded: most models in memory, at least 2; while a version is replaced there is one more.
        preload: models to load after the default one, before anybody asks for them.
        on_change: called after every load, swap, refusal or leave.
    """

    def __init__(
        self,
        store: ModelStore,
        engine: Engine,
        default: str,
        *,
        max_loaded: int,
        preload: Sequence[str] = (),
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = store
        self.default = default
        self.starting = True
        self._engine = engine
        self._max_loaded = max_loaded
        self._on_change = on_change
        self._awaited = dict.fromkeys((default, *preload))  # the watch loads these; in this order
        self._served: OrderedDict[str, ServedModel] = OrderedDict()  # the least recently used first
        self._refused: dict[str, RefusedVersion] = {}
        self._seen: dict[str, _Footprint] = {}
        self._updates: dict[str, asyncio.Task[ServedModel | None]] = {}
        self._one_at_a_time = asyncio.Lock()

    @property
    def served(self) -> list[ServedModel]:
        """The models in memory, by name."""
        return [self._served[name] for name in sorted(self._served)]

    @property
    def refused(self) -> list[RefusedVersion]:
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
        """The model of that name, loading it on first use; the default one for None. Enter it at once to use it.

        However many ask for it, it is loaded once; one who goes away does not stop that.

        Raises:
            UnknownModel: the store has no such model.
            ModelUnavailable: it is not loaded yet, or was refused.
        """
        wanted = self.default if name is None else name
        if (model := self._served.get(wanted)) is not None:
            self._served.move_to_end(wanted)
            return model
        # The watch brings the default one, and sees when a refused one is mended: no request tries that again.
        if wanted == self.default or wanted in self._refused:
            raise ModelUnavailable(self.why_unavailable(wanted))
        model = await self._update(wanted) if re.fullmatch(NAME_PATTERN, wanted) else None
        if model is None and wanted in self._refused:
            raise ModelUnavailable(self.why_unavailable(wanted))
        if model is None:
            raise UnknownModel(f"there is no model named {wanted!r}")
        return model

    def manifest(self, name: str) -> Manifest:
        """The card of what serves under that name, or of what CURRENT names if it is not in memory.

        Raises:
            UnknownModel, BundleRejected: as :meth:`ModelStore.manifest`.
        """
        if (model := self._served.get(name)) is not None:
            return model.bundle.manifest
        return self.store.manifest(name)

    async def load_default(self) -> None:
        """Loads the default model, or notes why it cannot."""
        try:
            await self._update(self.default)
        finally:
            self.starting = False

    async def watch(self) -> None:
        """Loads the default model, then those to preload, then follows the store until cancelled."""
        await self.load_default()
        while True:
            await self._look_around()
            await asyncio.sleep(POLL_S)

    async def _look_around(self) -> None:
        """One round: brings up to date what serves or should, and forgets refusals of what has changed since."""
        in_turn = list(islice((name for name in self._refused if name not in self._served), _REFUSED_A_ROUND))
        for name in in_turn:
            self._refused[name] = self._refused.pop(name)
        watched = dict.fromkeys((*self._awaited, *self._served, *in_turn))
        refused = set(self._refused)
        found = await asyncio.to_thread(
            lambda: {name: _footprint(self.store.root / name, files=name in refused) for name in watched}
        )
        for name, footprint in found.items():
            if footprint is not None and footprint == self._seen.get(name):
                continue
            if name in self._served or name in self._awaited:
                await self._update(name)
            else:
                self._mended(name)  # or perhaps not: whoever asks for it next will see

    async def _update(self, name: str) -> ServedModel | None:
        """Brings one model up to what the store says; None where it has none that can serve.

        Whoever comes while that goes on shares it, and leaves it to the others when cancelled.
        """
        task = self._updates.get(name)
        if task is None:
            task = self._updates[name] = asyncio.create_task(self._up_to_date(name))
            task.add_done_callback(lambda _: self._updates.pop(name))
        return await asyncio.shield(task)

    async def _up_to_date(self, name: str) -> ServedModel | None:
        """Refusals are remembered, whatever the reason: nothing may end the watch or a request."""
        footprint = await asyncio.to_thread(_footprint, self.store.root / name, files=True)
        try:
            version = await asyncio.to_thread(self.store.current, name)
            await self._serve(name, version)
        except UnknownModel as error:
            if name in self._served:
                self._refuse(name, f"{name}: the model has left the store; its last version still serves")
            elif name in self._awaited and name != self.default:
                self._refuse(name, f"{name}: it was to be preloaded, but {error}")
            return self._served.get(name)
        except InferenceError as error:
            self._refuse(name, str(error), footprint)
            return self._served.get(name)
        except Exception as error:  # a full disk, no memory for a large model: the next round tries again
            self._refuse(name, f"{name}: cannot be loaded: {error}")
            _log.exception("model refresh failed", model=name)
            return self._served.get(name)
        if name != self.default:
            self._awaited.pop(name, None)
        self._seen[name] = (version, ())
        self._mended(name)
        return self._served[name]

    async def _serve(self, name: str, version: str) -> None:
        """Loads a version, if it is not the one that serves. Loads take turns: one core's work, and no more memory."""
        async with self._one_at_a_time:
            serving = self._served.get(name)
            if serving is not None and serving.bundle.manifest.version == version:
                return
            if serving is None:
                await self._make_room()
            bundle = await asyncio.to_thread(self.store.load, name, version)
            fresh = self._served[name] = await self._engine.serve(bundle)
            fresh.acquire()
            asyncio.get_running_loop().call_later(_STAY_S, fresh.release)
            # Full collections over torch's many objects stall every request for 100 ms. What is frozen and leaves is
            # freed nevertheless: models hold no reference cycles.
            gc.collect()
            gc.freeze()
            _log.info("model loaded", model=name, version=version, replaced=serving and serving.bundle.manifest.version)

    async def _make_room(self) -> None:
        """Lets models leave until one more may come; waits for the requests that still use them."""
        while len(self._served) >= self._max_loaded:
            # Of those whose new version was refused there is no other copy.
            others = (name for name in self._served if name != self.default)
            name = min(others, key=lambda name: (name in self._refused, self._served[name].references > 0))
            leaving = self._served.pop(name)
            self._on_change()
            await leaving.wait_until_unused()
            _log.info("model left memory", model=name, version=leaving.bundle.manifest.version)

    def _mended(self, name: str) -> None:
        self._refused.pop(name, None)
        self._on_change()

    def _refuse(self, name: str, reason: str, footprint: _Footprint | None = None) -> None:
        """Remembers why, until the footprint changes; without one until the next round of the watch."""
        if footprint is None:
            self._seen.pop(name, None)
        else:
            self._seen[name] = footprint
        if self._refused.get(name) != RefusedVersion(name, reason):
            self._refused[name] = RefusedVersion(name, reason)
            _log.error("model refused", model=name, reason=reason)
            self._on_change()


def _footprint(model: Path, *, files: bool) -> _Footprint | None:
    """None where CURRENT cannot be read or names nothing: then there is nothing to remember."""
    try:
        version = (model / CURRENT_FILE).read_text().strip()[:80]
        if not re.fullmatch(VERSION_PATTERN, version):
            return version, ()
        (model / version).stat()
        paths = [path for path in (model / version).rglob("*") if path.is_file()] if files else []
        return version, tuple(sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths))
    except (OSError, ValueError):
        return None
