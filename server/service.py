"""From a request to images: rows go in, futures come back, files go out."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from engines.base import Engine, ImageRequest
from server.api.schemas import GenerateRequest, Parameters, Timings
from server.encoding import Encoder
from server.errors import DeadlineError, FieldError, InvalidInputError
from server.hosting.catalogue import Catalogue, ServedModel
from server.hosting.lifecycle import Lifecycle
from server.image_format import ImageFormat
from server.interruption import TimeLimit
from server.metrics import Metrics
from server.sampling import DRAWN_SEEDS, MAX_SEED, resolve
from server.scheduling.preview import PreviewBox
from server.scheduling.ticket import Ticket
from server.scheduling.worker import Worker
from server.settings import Settings
from server.tracing.journal import Journal

if TYPE_CHECKING:
    from server.tracing.tracing import Tracing  # Whoever does not trace need not import OpenTelemetry.

_MADE = tuple(field.name for field in dataclasses.fields(ImageRequest) if field.name != "seed")


@dataclass(frozen=True, slots=True)
class Picture:
    """One image file; width and height are in pixels."""

    seed: int
    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Generated:
    """The images of one request and how they were made."""

    pictures: Sequence[Picture]
    format: ImageFormat
    model: str
    version: int
    parameters: Parameters
    timings: Timings


class Watcher(Protocol):
    """Whoever wants to see how a request's images get on."""

    def box(self, calls: int) -> PreviewBox | None:
        """Return where the previews of an image of so many engine calls go; None: it needs none."""
        ...

    def accepted(self, tickets: Sequence[Ticket], position: int) -> None:
        """Hear that the request was accepted, behind so many waiting images of its model."""
        ...

    def made(self, picture: Picture) -> None:
        """Hear that an image is finished."""
        ...


class Service:
    """Makes the images that requests ask for."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalogue: Catalogue,
        lifecycle: Lifecycle,
        worker: Worker,
        encoder: Encoder,
        metrics: Metrics,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Put the parts together; `clock` gives seconds and is the worker's."""
        self._settings = settings
        self._catalogue = catalogue
        self._lifecycle = lifecycle
        self._worker = worker
        self._encoder = encoder
        self._made = cache(metrics.images.labels)
        self._tracing = tracing
        self._clock = clock

    async def generate(
        self, wanted: GenerateRequest, image_format: ImageFormat, watcher: Watcher | None = None
    ) -> Generated:
        """Make the images of one request. Cancelling it drops its rows before the next engine call.

        Args:
            wanted: the request.
            image_format: of the files.
            watcher: sees how they get on.

        Raises:
            ServeError: refused, failed or too late.
        """
        arrival = self._clock()
        deadline_ms = wanted.deadline_ms or self._settings.deadline_ms
        model = self._catalogue.find(wanted.model, wanted.version)
        engine = await self._lifecycle.engine(model, deadline_ms / 1000)
        request = self._resolve(model, engine, wanted)
        path = engine.path(request)
        calls = sum(leg.calls for leg in path)
        tickets = [
            Ticket(
                model=model.key,
                request=dataclasses.replace(request, seed=request.seed + index) if index else request,
                arrival=arrival,
                deadline=arrival + deadline_ms / 1000,
                path=path,
                priority=wanted.priority,
                promised=wanted.deadline_ms is not None,
                previews=None if watcher is None else watcher.box(calls),
                journal=Journal() if self._tracing else None,
            )
            for index in range(wanted.n)
        ]
        position = self._worker.waiting(model.key)
        self._worker.submit(tickets)
        if watcher is not None:
            watcher.accepted(tickets, position)
        late = DeadlineError(f"the images were not finished within {deadline_ms} ms")
        try:
            with self._lifecycle.accept(), TimeLimit(deadline_ms / 1000, late):
                pictures = await self._pictures(tickets, image_format, watcher)
        finally:
            for ticket in tickets:
                ticket.future.cancel()
            if self._tracing:
                self._tracing.rows(tickets)
        self._made(*model.key, image_format).inc(wanted.n)
        return Generated(
            pictures=pictures,
            format=image_format,
            model=model.key.name,
            version=model.key.number,
            parameters=_parameters(model, request),
            timings=_timings(tickets, self._clock()),
        )

    async def _pictures(
        self, tickets: Sequence[Ticket], image_format: ImageFormat, watcher: Watcher | None
    ) -> Sequence[Picture]:
        pictures = [self._picture(ticket, image_format, watcher) for ticket in tickets]
        return [await pictures[0]] if len(pictures) == 1 else await asyncio.gather(*pictures)

    async def _picture(self, ticket: Ticket, image_format: ImageFormat, watcher: Watcher | None) -> Picture:
        image = await asyncio.wrap_future(ticket.future)
        height, width, _ = image.shape
        if ticket.journal is not None:
            ticket.journal.encoding = self._clock()
        data = await self._encoder.encode(image, image_format)
        if ticket.journal is not None:
            ticket.journal.encoded = self._clock()
        picture = Picture(seed=ticket.request.seed, data=data, width=width, height=height)
        if watcher is not None:
            watcher.made(picture)
        return picture

    def _resolve(self, model: ServedModel, engine: Engine[Any], wanted: GenerateRequest) -> ImageRequest:
        """Return the request for the first image, every default filled in."""
        self._check_limits(wanted)
        seed = secrets.randbelow(DRAWN_SEEDS - wanted.n) if wanted.seed is None else wanted.seed
        return resolve(engine, wanted, class_id=model.class_id(wanted.class_id, wanted.class_name), seed=seed)

    def _check_limits(self, wanted: GenerateRequest) -> None:
        limits = {
            "n": (wanted.n, self._settings.max_images),
            "steps": (wanted.steps or 0, self._settings.max_steps),
            "deadline_ms": (wanted.deadline_ms or 0, self._settings.deadline_ms),
            "seed": ((wanted.seed or 0) + wanted.n - 1, MAX_SEED),
        }
        errors = [
            FieldError(field, f"{value} is more than {limit}")
            for field, (value, limit) in limits.items()
            if value > limit
        ]
        if errors:
            raise InvalidInputError(errors)


def _parameters(model: ServedModel, request: ImageRequest) -> Parameters:
    names = model.version.spec.class_names
    made = {name: getattr(request, name) for name in _MADE}
    return Parameters(**made, class_name=None if request.class_id is None else names[request.class_id])


def _timings(tickets: Sequence[Ticket], ended: float) -> Timings:
    arrival = tickets[0].arrival
    started = min(ticket.started or ended for ticket in tickets)
    finished = max(ticket.finished or ended for ticket in tickets)
    return Timings(
        queue_ms=_milliseconds(started - arrival),
        compute_ms=_milliseconds(finished - started),
        encode_ms=_milliseconds(ended - finished),
        total_ms=_milliseconds(ended - arrival),
    )


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)
