"""Brings versions into memory and out of it, and says which one is the default, while others serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog

from engines.base import Engine
from server.errors import ConflictError, NotReadyError, ServeError, UnknownVersionError, VersionRefusedError
from server.hosting.catalogue import Catalogue, ModelState, ServedModel
from server.hosting.loader import Loader
from server.hosting.memory import MemoryBudget
from server.hosting.sources import Source
from server.hosting.version_key import VersionKey
from server.metrics import Metrics
from server.scheduling.worker import Worker

LOADING_RETRY_S = 5.0

log = structlog.get_logger(__name__)


class Host:
    """The versions in memory.

    Everything here runs on the event loop; engines are loaded beside it, one at a time. A version's rows go
    to its own engine only, and an engine leaves after its last row, so a change of the default version
    touches no request that has begun.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        worker: Worker,
        loader: Loader,
        metrics: Metrics,
        *,
        sources: Mapping[str, Source],
        budget: MemoryBudget,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load nothing yet; `clock` gives seconds."""
        self._catalogue = catalogue
        self._worker = worker
        self._loader = loader
        self._metrics = metrics
        self._sources = sources
        self._budget = budget
        self._clock = clock
        self._one_load = asyncio.Lock()
        self._one_switch = asyncio.Lock()
        self._loads: dict[VersionKey, asyncio.Task[None]] = {}
        self._exits: dict[VersionKey, asyncio.Task[None]] = {}
        self._refusals: dict[str, str] = {}
        for model in catalogue:
            self._show(model)

    @property
    def refusals(self) -> Mapping[str, str]:
        """Why the last switch of a model was refused, by the model's name."""
        return self._refusals

    async def start(self) -> None:
        """Load the versions of the configuration, as many as fit, and say of the others why not."""
        for model in list(self._catalogue):
            if model.state is ModelState.STARTING:
                try:
                    await self._bring_in(model, keep=self._catalogue)
                except ServeError:
                    continue  # logged, and kept as the model's reason

    async def engine(self, model: ServedModel, within_s: float) -> Engine[Any]:
        """Return a version's engine; load it first if it is known but not in memory.

        The caller submits the rows before it awaits anything else: an idle engine may leave at any time.

        Raises:
            NotReadyError: it is being loaded at the server's start, cannot be loaded, or not in `within_s`.
        """
        model.wanted += 1
        try:
            async with asyncio.timeout(within_s):
                while model.engine is None:
                    if model.state in (ModelState.STARTING, ModelState.FAILED):
                        raise _not_ready(model)
                    await self._bring_in(model)
        except (VersionRefusedError, TimeoutError):
            raise _not_ready(model) from None
        finally:
            model.wanted -= 1
        model.last_used = self._clock()
        return model.engine

    async def load(self, name: str, number: int | None) -> None:
        """Bring a version into memory, by default the registry's current one.

        Raises:
            UnknownModelError: no such model is served.
            UnknownVersionError: neither the server nor the registry has the version.
            VersionRefusedError: it is damaged, fails its golden image or is too large.
            NotReadyError: there is no room beside the versions in use.
        """
        await self._bring_in(await self._find(name, number))

    async def unload(self, name: str, number: int) -> None:
        """Stop serving a version and wait until its last row is done and its memory free.

        Raises:
            UnknownModelError, UnknownVersionError: it is not served.
            ConflictError: it is the model's default version.
        """
        model = self._catalogue.find(name, number)
        if model is self._catalogue.find(name):
            raise ConflictError(f"{model.key} answers requests that give no version; switch to another first")
        self._catalogue.remove(model)
        if (load := self._loads.get(model.key)) is not None:
            await asyncio.wait([load])
        if model.engine is not None:
            self._leave(model)
        if (leaving := self._exits.get(model.key)) is not None:
            await asyncio.shield(leaving)
        self._metrics.remove_model(model.key)
        log.info("model unloaded", model=name, version=number)

    async def switch(self, name: str, number: int | None) -> None:
        """Make a version the default one once it is loaded and checked.

        Raises:
            UnknownModelError, UnknownVersionError, VersionRefusedError, NotReadyError: as `load`; the version
                that was the default stays it.
        """
        async with self._one_switch:
            with self._observed_swap(name):
                await self._give_default(await self._find(name, number), self._catalogue.make_default)

    async def roll_back(self, name: str) -> None:
        """Make the version the default one that was it before.

        Raises:
            UnknownModelError: no such model is served.
            ConflictError: there was none before.
            VersionRefusedError, NotReadyError: as `load`.
        """
        async with self._one_switch:
            self._catalogue.find(name)
            earlier = self._catalogue.earlier(name)
            if earlier is None:
                raise ConflictError(f"{name} has had no other default version since the server started")
            with self._observed_swap(name):
                await self._give_default(earlier, lambda _: self._catalogue.step_back(name))

    async def _give_default(self, model: ServedModel, give: Callable[[ServedModel], None]) -> None:
        old = self._catalogue.find(model.key.name)
        while model.engine is None:
            await self._bring_in(model, keep=[old])
        give(model)
        log.info("model switched", model=model.key.name, version=model.key.number, before=old.key.number)
        source = self._sources.get(model.key.name)
        if old is not model and old.engine is not None and source and not source.keeps(old.key.number):
            self._leave(old)

    async def _find(self, name: str, number: int | None) -> ServedModel:
        """Return a version that is known already, or get to know it from the registry."""
        default, source = self._catalogue.find(name), self._sources.get(name)
        if source is None:
            return default if number is None else self._catalogue.find(name, number)
        try:
            if number is not None:
                return self._catalogue.find(name, number)
        except UnknownVersionError:
            pass
        version = await asyncio.to_thread(source.open, number)
        try:
            return self._catalogue.find(name, version.number)
        except UnknownVersionError:
            model = self._catalogue.add(version)
            self._show(model)
            return model

    async def _bring_in(self, model: ServedModel, keep: Iterable[ServedModel] = ()) -> None:
        """Load a version unless it is there; whoever else wants it meanwhile shares the load."""
        load = self._loads.get(model.key)
        if load is None:
            load = _start(self._loads, model, self._load(model, list(keep)))
        await asyncio.shield(load)

    async def _load(self, model: ServedModel, keep: list[ServedModel]) -> None:
        name, number = model.key
        async with self._one_load:
            if (leaving := self._exits.get(model.key)) is not None:
                await asyncio.wait([leaving])
            if model.engine is not None:
                return
            if model not in self._catalogue:
                raise UnknownVersionError(f"{model.key} has just been unloaded")
            if model.state is not ModelState.STARTING:
                self._mark(model, ModelState.LOADING, "loading")
            started = self._clock()
            engine = await self._try(model, keep)
            seconds = self._clock() - started
            self._metrics.model_load.labels(name, "refused" if engine is None else "ok").observe(seconds)
            if engine is None:
                await self._loader.clear()
                raise VersionRefusedError(f"{model.key} cannot be served: {model.reason}")
            self._worker.attach(model.key, engine)
            model.engine = engine
            model.last_used = self._clock()
            self._mark(model, ModelState.READY, "")
            log.info(
                "model ready",
                model=name,
                version=number,
                seconds=round(seconds, 3),
                memory_bytes=engine.nbytes,
            )

    async def _try(self, model: ServedModel, keep: list[ServedModel]) -> Engine[Any] | None:
        """Load a version; None: it failed, and says why. The error, which holds the engine, ends here."""
        try:
            await self._make_room(model, keep)
            engine, model.image_shape = await self._loader.load(model.version)
            model.nbytes = engine.nbytes
            await self._make_room(model, keep)
        except NotReadyError as error:
            self._mark(model, ModelState.UNLOADED, str(error))
            raise
        except Exception as error:
            self._mark(model, ModelState.FAILED, str(error) or type(error).__name__)
            log.exception("model failed", model=model.key.name, version=model.key.number)
            return None
        return engine

    async def _make_room(self, model: ServedModel, keep: list[ServedModel]) -> None:
        """Send idle versions away until an engine of the model's size fits."""
        if self._budget.limit is None:
            return
        if self._exits:
            await asyncio.wait(self._exits.values())
        held = sum(each.held_nbytes for each in self._catalogue)
        idle = [each for each in self._catalogue if each not in keep and self._idle(each)]
        for leaver in self._budget.leavers(model.nbytes, held, idle):
            log.info(
                "model makes room", model=leaver.key.name, version=leaver.key.number, for_=str(model.key)
            )
            await self._leave(leaver)

    def _idle(self, model: ServedModel) -> bool:
        rows = self._worker.waiting(model.key) + self._worker.active(model.key)
        return model.engine is not None and not rows and not model.wanted

    def _leave(self, model: ServedModel) -> asyncio.Task[None]:
        """Give no more rows to an engine; it leaves after its last one."""
        model.engine = None
        self._mark(model, ModelState.LEAVING, "not loaded")
        return _start(self._exits, model, self._exit(model))

    async def _exit(self, model: ServedModel) -> None:
        await asyncio.wrap_future(self._worker.detach(model.key))
        self._mark(model, ModelState.UNLOADED, "not loaded")
        await self._loader.free()

    @contextmanager
    def _observed_swap(self, name: str) -> Iterator[None]:
        started = self._clock()
        outcome = "refused"
        try:
            yield
            outcome = "ok"
            self._refusals.pop(name, None)
        except ServeError as error:
            stays = self._catalogue.find(name).key
            reason = f"{error}; {stays} stays"
            if self._refusals.get(name) != reason:
                log.error("model not switched", model=name, reason=reason)
            self._refusals[name] = reason
            raise
        finally:
            self._metrics.swap.labels(name, outcome).observe(self._clock() - started)

    def _mark(self, model: ServedModel, state: ModelState, reason: str) -> None:
        model.state, model.reason = state, reason
        self._metrics.show_state(model)

    def _show(self, model: ServedModel) -> None:
        self._metrics.add_model(
            model,
            waiting=partial(self._worker.waiting, model.key),
            active=partial(self._worker.active, model.key),
        )


def _start(
    tasks: dict[VersionKey, asyncio.Task[None]], model: ServedModel, work: Coroutine[Any, Any, None]
) -> asyncio.Task[None]:
    """Start a task that is in `tasks` until it ends."""

    async def run() -> None:
        try:
            await work
        finally:
            del tasks[model.key]

    task = tasks[model.key] = asyncio.create_task(run())
    return task


def _not_ready(model: ServedModel) -> NotReadyError:
    return NotReadyError(f"model {model.key} is not ready: {model.reason}", LOADING_RETRY_S)
