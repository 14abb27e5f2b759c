"""A job's rows: few at a time, so that what interactive requests need stays free."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from engines.base import Engine
from server.errors import DrainingError, EngineFailureError, QueueFullError
from server.hosting.catalogue import Catalogue
from server.hosting.lifecycle import Lifecycle
from server.hosting.version_key import VersionKey
from server.jobs.plan import JobPlan
from server.scheduling.priority import Priority
from server.scheduling.ticket import Image, Ticket
from server.scheduling.worker import Worker

# One engine call's rows are computed while those of the next ones wait to take their places.
WINDOW_CALLS = 3
# Seconds after which a version that is still being loaded is asked for again.
LOADING_S = 60.0
# A call that fails takes all its rows along: those of a job too, where another request is to blame.
RETRIES_S = (0.05, 0.1, 0.2, 0.4, 0.8)


class JobRows:
    """Makes the images of jobs on the engine thread."""

    def __init__(
        self,
        catalogue: Catalogue,
        lifecycle: Lifecycle,
        worker: Worker,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use the app's parts; `clock` gives seconds and is the worker's."""
        self._catalogue = catalogue
        self._lifecycle = lifecycle
        self._worker = worker
        self._clock = clock

    async def engine(self, plan: JobPlan) -> Engine[Any]:
        """Return the engine that makes a job's images; load its version if that is not in memory.

        Raises:
            UnknownModelError, UnknownVersionError: what the job is pinned to is not served.
            NotReadyError: it is not ready yet.
            DrainingError: the server is about to end.
        """
        return await self._lifecycle.engine(self._catalogue.find(plan.model, plan.version), LOADING_S)

    async def images(self, plan: JobPlan, places: Iterable[int]) -> AsyncGenerator[tuple[int, Image], None]:
        """Yield places and their images, (H, W, 3) uint8 RGB, in order.

        Closing it drops the rows under way before the next engine call.

        Raises:
            ServeError: see `engine`; EngineFailureError: the engine failed at one image again and again.
        """
        window: deque[tuple[int, Ticket]] = deque()
        ahead = iter(places)
        try:
            while True:
                engine = await self.engine(plan)
                room = WINDOW_CALLS * engine.max_rows - len(window)
                fresh = list(islice(ahead, room)) if room >= engine.max_rows else []
                window.extend(zip(fresh, await self._submit(plan, fresh), strict=True))
                if not window:
                    return
                place, ticket = window[0]
                image = await self._image(plan, place, ticket)
                window.popleft()
                yield place, image
        finally:
            for _, ticket in window:
                ticket.future.cancel()

    async def _image(self, plan: JobPlan, place: int, ticket: Ticket) -> Image:
        for pause_s in RETRIES_S:
            try:
                return await asyncio.wrap_future(ticket.future)
            except EngineFailureError:
                await asyncio.sleep(pause_s)
                [ticket] = await self._submit(plan, [place])
        return await asyncio.wrap_future(ticket.future)

    async def _submit(self, plan: JobPlan, places: Sequence[int]) -> list[Ticket]:
        """Queue rows as soon as there is room; requests of clients do not wait for it."""
        while places:
            engine = await self.engine(plan)
            tickets = [self._ticket(plan, place, engine) for place in places]
            try:
                self._worker.submit(tickets)
            except QueueFullError as error:
                await asyncio.sleep(min(1.0, max(0.01, error.retry_after_s)))
            except EngineFailureError as error:
                raise DrainingError(str(error), 0.0) from error
            else:
                return tickets
        return []

    def _ticket(self, plan: JobPlan, place: int, engine: Engine[Any]) -> Ticket:
        request = plan.image_request(place)
        return Ticket(
            model=VersionKey(plan.model, plan.version),
            request=request,
            arrival=self._clock(),
            deadline=float("inf"),
            path=engine.path(request),
            priority=Priority.BATCH,
        )
