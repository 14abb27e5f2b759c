"""One request's events, in their order."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import structlog
from pydantic import BaseModel
from starlette.requests import Request

from server.api.events import DoneEvent, ImageEvent, PreviewEvent, QueuedEvent
from server.api.problems import problem_of
from server.api.schemas import PreviewOptions
from server.encoding import Encoder, fitting
from server.errors import ClientDisconnectedError, ServeError
from server.metrics import Metrics
from server.request_id import REQUEST_ID
from server.scheduling.preview import Preview
from server.service import Generated, Picture
from server.streaming.feed import Feed, Unfinished

log = structlog.get_logger(__name__)

Event: TypeAlias = tuple[str, BaseModel]


class Stream:
    """Makes the images of one request and tells how they get on."""

    def __init__(
        self,
        request: Request,
        options: PreviewOptions,
        *,
        encoder: Encoder,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the answer to `request`; `clock` gives seconds and is the worker's."""
        self._request = request
        self._options = options
        self._encoder = encoder
        self._metrics = metrics
        self._clock = clock
        self._request_id = REQUEST_ID.get()
        self.feed = Feed(options, clock)
        self._previewed = False
        self._work: asyncio.Task[Generated]

    async def start(self, work: Coroutine[Any, Any, Generated], held: AbstractContextManager[object]) -> None:
        """Start `work`, which has `feed` as its watcher, and return once the request is accepted.

        Args:
            work: makes the images.
            held: is left when they are made, or will not be.

        Raises:
            ServeError: the request is refused.
        """
        self._work = asyncio.create_task(_holding(held, work))
        self._work.add_done_callback(lambda _: self.feed.wake())
        while not self.feed.tickets and not self._work.done():
            await self.feed.changed()
        if not self.feed.tickets:
            self._work.result()

    async def close(self) -> None:
        """Drop what is not finished."""
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)

    async def events(self) -> AsyncIterator[Event]:
        """Yield each event's name and data: `queued`, then previews and images as they come, then the end."""
        yield "queued", self._queued_event()
        while True:
            ended = self._work.done()
            while (finished := self.feed.take_picture()) is not None:
                yield "image", _image_event(*finished)
            if ended:
                break
            if (shown := self.feed.take_preview()) is not None:
                yield "preview", await self._preview_event(*shown)
                self.feed.delivered(*shown)
            else:
                await self.feed.changed()
        yield self._end()

    def _queued_event(self) -> QueuedEvent:
        event = QueuedEvent(position=self.feed.position, request_id=self._request_id)
        last = self.feed.tickets[-1]
        if not last.forecast or last.begins is None or last.expected is None:
            return event
        begins, ends = (round(1000 * (time - last.arrival), 3) for time in (last.begins, last.expected))
        return event.model_copy(update={"start_ms": begins, "end_ms": ends})

    async def _preview_event(self, image: Unfinished, preview: Preview) -> PreviewEvent:
        height, width, _ = preview.image.shape
        size = fitting(width, height, self._options.size)
        data = await self._encoder.encode(preview.image, self._options.format, size)
        if not self._previewed:
            self._previewed = True
            ticket = self.feed.tickets[0]
            self._metrics.first_preview.labels(*ticket.model).observe(self._clock() - ticket.arrival)
        return PreviewEvent(
            index=image.index,
            seed=image.seed,
            call=preview.call,
            calls=preview.calls,
            image=base64.b64encode(data).decode(),
            format=self._options.format,
            width=size[0],
            height=size[1],
        )

    def _end(self) -> Event:
        try:
            generated = self._work.result()
        except Exception as error:
            if not isinstance(error, ServeError):
                log.error("unexpected error", path=self._request.url.path, exc_info=error)
            return "error", problem_of(error, self._request)
        return "done", DoneEvent(
            format=generated.format,
            model=generated.model,
            version=generated.version,
            parameters=generated.parameters,
            timings=generated.timings,
            request_id=self._request_id,
        )


async def _holding(held: AbstractContextManager[object], work: Coroutine[Any, Any, Generated]) -> Generated:
    with held:
        try:
            return await work
        except asyncio.CancelledError:
            raise ClientDisconnectedError("the client closed the connection") from None


def _image_event(index: int, picture: Picture) -> ImageEvent:
    return ImageEvent(
        index=index,
        seed=picture.seed,
        image=base64.b64encode(picture.data).decode(),
        width=picture.width,
        height=picture.height,
    )
