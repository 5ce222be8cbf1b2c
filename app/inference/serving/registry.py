"""The models in memory: loaded on first use, limited in number, replaced when CURRENT changes.

A new version is verified and warmed up while the old one serves, then swapped in by one assignment. If it fails, it is
refused, and the old version continues to serve. If there is no room for another model, the least recently used one is
evicted; models in use are evicted last, and freed only after their last request.
"""

import asyncio
import gc
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import structlog

from app.inference.bundles.manifest import NAME_PATTERN, Manifest
from app.inference.bundles.store import ModelStore, StoreState
from app.inference.errors import InferenceError, ModelUnavailable, UnknownModel
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.engine import Engine
from app.inference.serving.store_access import STORE_TIMEOUT_S, StoreAccess

POLL_S: Final = 1.0
"""Seconds between two polls of the store."""

# Each poll checks every model in memory, but only this many of the refused ones, in turn.
_REFUSED_PER_POLL: Final = 16

# One that hangs in its trial must not delay the others, and each may take memory.
_TRIALS_AT_ONCE: Final = 2

# A new model is not evicted before the requests that waited for it could use it.
_MIN_STAY_S: Final = 0.05

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class RefusedVersion:
    """Why the version that CURRENT names is not served.

    Attributes:
        model: name of the model.
        reason: one sentence for a person.
    """

    model: str
    reason: str


class ModelRegistry:
    """Loads models through the engine and keeps them up to date. Runs on the event loop; only :meth:`manifest` blocks.

    Versions are tried before they are loaded, if the store tries any. A trial or a load of one model delays those of
    others by no more than its deadline.

    Args:
        store: where the versions are.
        engine: warms models up and runs them.
        default: the default model; loaded at the start and never evicted.
        max_loaded: most models in memory, at least 2; one more while a version is replaced.
        preload: models to load after the default one, before they are requested.
        load_timeout_s: the most seconds that a trial takes; loading and warming up may each take as long again.
        on_change: called after every load, swap, refusal or eviction.

    Attributes:
        access: calls the store from the event loop.
        starting: whether the default model has not been tried yet.
    """

    def __init__(
        self,
        store: ModelStore,
        engine: Engine,
        default: str,
        *,
        max_loaded: int,
        preload: Sequence[str] = (),
        load_timeout_s: float = 60,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = store
        self.default = default
        self.starting = True
        self.access = StoreAccess(STORE_TIMEOUT_S)
        self._loads = StoreAccess(load_timeout_s + STORE_TIMEOUT_S, "the model could not be loaded")
        self._trials = asyncio.Semaphore(_TRIALS_AT_ONCE)
        self._engine = engine
        self._max_loaded = max_loaded
        self._on_change = on_change
        # Polling loads these, in this order: the default model always, the others until they are loaded.
        self._to_load = dict.fromkeys((default, *preload))
        self._served: OrderedDict[str, ServedModel] = OrderedDict()  # the least recently used first
        self._refused: dict[str, RefusedVersion] = {}
        self._checked: dict[str, StoreState] = {}  # what was on disk when a model was loaded or refused
        self._refreshes: dict[str, asyncio.Task[ServedModel | None]] = {}
        self._load_lock = asyncio.Lock()

    @property
    def served(self) -> list[ServedModel]:
        """The models in memory, by name."""
        return [self._served[name] for name in sorted(self._served)]

    @property
    def refused(self) -> list[RefusedVersion]:
        """The refused versions that have not been fixed or replaced since, by name."""
        return [self._refused[name] for name in sorted(self._refused)]

    def default_served(self) -> ServedModel | None:
        """The default model, if it is loaded."""
        return self._served.get(self.default)

    def why_unavailable(self, name: str) -> str:
        """Why a model is not loaded, as one sentence for a person."""
        if refusal := self._refused.get(name):
            return refusal.reason
        return "the model is being loaded" if self.starting else f"the store has no model named {name!r}"

    async def get(self, name: str | None) -> ServedModel:
        """The model of that name, or the default model; loaded if necessary, once for all concurrent callers.

        Enter the result's ``with`` block before the next ``await``, so that it is not evicted. Loading continues if a
        caller is cancelled.

        Args:
            name: of a model; None: the default model.

        Raises:
            UnknownModel: the store has no such model.
            ModelUnavailable: it is not loaded yet, or was refused.
        """
        wanted = self.default if name is None else name
        if (model := self._served.get(wanted)) is not None:
            self._served.move_to_end(wanted)
            return model
        # Requests do not load the default model or retry a refused one: polling does.
        if wanted == self.default or wanted in self._refused:
            raise ModelUnavailable(self.why_unavailable(wanted))
        model = await self._refresh(wanted) if re.fullmatch(NAME_PATTERN, wanted) else None
        if model is None and wanted in self._refused:
            raise ModelUnavailable(self.why_unavailable(wanted))
        if model is None:
            raise UnknownModel(f"there is no model named {wanted!r}")
        return model

    async def unload(self, name: str) -> bool:
        """Frees the memory of a model after its last request; the next one loads it again.

        Returns:
            False if it is the default model, which stays.
        """
        if name == self.default:
            return False
        async with self._load_lock:
            if name in self._served:
                await self._evict(name)
        return True

    def manifest(self, name: str) -> Manifest:
        """The manifest of the version in memory, or else of the current version in the store. Blocks.

        Raises:
            UnknownModel, BundleRejected: as :meth:`ModelStore.manifest`.
        """
        if (model := self._served.get(name)) is not None:
            return model.bundle.manifest
        return self.store.manifest(name)

    async def load_default(self) -> None:
        """Loads the default model; if that fails, :meth:`why_unavailable` gives the reason."""
        try:
            await self._refresh(self.default)
        finally:
            self.starting = False

    async def watch(self) -> None:
        """Loads the default model and those to preload, then polls the store until cancelled."""
        await self.load_default()
        while True:
            await self._poll()
            await asyncio.sleep(POLL_S)

    async def _poll(self) -> None:
        """Checks the files on disk: refreshes models in memory or to preload, and clears refusals of other models."""
        refused = list(islice((name for name in self._refused if name not in self._served), _REFUSED_PER_POLL))
        for name in refused:
            self._refused[name] = self._refused.pop(name)  # to the end: the next poll checks others
        names = dict.fromkeys((*self._to_load, *self._served, *refused))
        with_files = set(self._refused)
        try:
            states = await self.access.run(
                lambda: {name: self.store.state(name, files=name in with_files) for name in names}
            )
        except ModelUnavailable as error:
            _log.error("cannot look for new versions", reason=str(error))
            return
        for name, state in states.items():
            if name in self._refreshes or (state is not None and state == self._checked.get(name)):
                continue
            if name in self._served or name in self._to_load:
                self._start_refresh(name)  # not awaited: the next poll must not wait for a slow model
            else:
                self._clear_refusal(name)  # the next request for it tries again

    async def _refresh(self, name: str) -> ServedModel | None:
        """Loads the current version of a model unless it is served; None if the model cannot be served.

        Concurrent callers share one refresh, which continues if a caller is cancelled.
        """
        return await asyncio.shield(self._start_refresh(name))

    def _start_refresh(self, name: str) -> "asyncio.Task[ServedModel | None]":
        task = self._refreshes.get(name)
        if task is None:
            task = self._refreshes[name] = asyncio.create_task(self._refresh_now(name))
            task.add_done_callback(lambda _: self._refreshes.pop(name))
        return task

    async def _refresh_now(self, name: str) -> ServedModel | None:
        """Turns every error into a refusal: an error must not end polling or a request of another model."""
        state: StoreState | None = None
        try:
            state = await self.access.run(lambda: self.store.state(name, files=True))
            version = await self.access.run(lambda: self.store.current(name))
            await self._serve(name, version)
        except UnknownModel as error:
            if name in self._served:
                self._refuse(name, f"{name}: the model was removed from the store; its last version is still served")
            elif name in self._to_load and name != self.default:
                self._refuse(name, f"{name}: cannot be preloaded: {error}")
            return self._served.get(name)
        except ModelUnavailable as error:  # the store did not answer: the next poll tries again
            self._refuse(name, f"{name}: {error}")
            return self._served.get(name)
        except InferenceError as error:
            self._refuse(name, str(error), state)
            return self._served.get(name)
        except Exception as error:  # a full disk or too little memory, for example: the next poll tries again
            self._refuse(name, f"{name}: cannot be loaded: {error}")
            _log.exception("model refresh failed", model=name)
            return self._served.get(name)
        if name != self.default:
            self._to_load.pop(name, None)
        self._checked[name] = (version, ())
        self._clear_refusal(name)
        return self._served[name]

    async def _serve(self, name: str, version: str) -> None:
        """Loads a version unless it is served. One load at a time, to limit the use of processor and memory."""
        if self._serves(name, version):
            return
        async with self._trials:
            await self._loads.run(lambda: self.store.try_out(name, version))
        async with self._load_lock:
            if self._serves(name, version):
                return
            old = self._served.get(name)
            if old is None:
                await self._make_room()
            bundle = await self._loads.run(lambda: self.store.load(name, version))
            new = self._served[name] = await self._engine.serve(bundle, self._loads.run)
            new.acquire()
            asyncio.get_running_loop().call_later(_MIN_STAY_S, new.release)
            # Full collections over torch's many objects stall all requests for 100 ms, so they are excluded from
            # collection. Evicted models are freed nevertheless: they contain no reference cycles.
            gc.collect()
            gc.freeze()
            _log.info("model loaded", model=name, version=version, replaced=old and old.bundle.manifest.version)

    def _serves(self, name: str, version: str) -> bool:
        served = self._served.get(name)
        return served is not None and served.bundle.manifest.version == version

    async def _make_room(self) -> None:
        """Evicts models until there is room for another one; waits for the requests that still use them."""
        while len(self._served) >= self._max_loaded:
            # A model whose new version was refused cannot be loaded again, so it is evicted last.
            others = (name for name in self._served if name != self.default)
            name = min(others, key=lambda name: (name in self._refused, self._served[name].references > 0))
            await self._evict(name)

    async def _evict(self, name: str) -> None:
        evicted = self._served.pop(name)
        self._on_change()
        await evicted.wait_until_unused()
        _log.info("model left memory", model=name, version=evicted.bundle.manifest.version)

    def _clear_refusal(self, name: str) -> None:
        self._refused.pop(name, None)
        self._on_change()

    def _refuse(self, name: str, reason: str, state: StoreState | None = None) -> None:
        """Refuses a version until its files differ from ``state``; without a state, until the next poll."""
        if state is None:
            self._checked.pop(name, None)
        else:
            self._checked[name] = state
        refusal = RefusedVersion(name, reason)
        if self._refused.get(name) != refusal:
            self._refused[name] = refusal
            _log.error("model refused", model=name, reason=reason)
            self._on_change()
