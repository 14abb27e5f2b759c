"""How the images of one request get on, from the service to whoever streams them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from server.api.schemas import PreviewOptions
from server.scheduling.preview import Preview, PreviewBox
from server.scheduling.ticket import Ticket
from server.service import Picture


@dataclass(slots=True, eq=False)
class Unfinished:
    """An image under way: its place in the request, its seed, its previews and how many were shown."""

    index: int
    seed: int
    box: PreviewBox
    shown: int = 0


class Feed:
    """A `Watcher` that keeps each finished image until it is read, and of each other one a single preview.

    It belongs to one event loop; the engine thread sees the boxes alone.

    Attributes:
        tickets: the accepted request's; none before.
        position: images that waited in front of them.
    """

    def __init__(self, options: PreviewOptions, clock: Callable[[], float]) -> None:
        """Ask for previews as `options` say; `clock` gives seconds and is the worker's."""
        self._options = options
        self._clock = clock
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pictures: deque[tuple[int, Picture]] = deque()
        self._unfinished: dict[int, Unfinished] = {}
        self.tickets: Sequence[Ticket] = ()
        self.position = 0

    def box(self, calls: int) -> PreviewBox | None:
        """See `Watcher`."""
        if self._options.limit == 0:
            return None
        box = PreviewBox(calls, partial(self._loop.call_soon_threadsafe, self.wake))
        box.ask()
        return box

    def accepted(self, tickets: Sequence[Ticket], position: int) -> None:
        """See `Watcher`."""
        self.tickets, self.position = tickets, position
        for index, ticket in enumerate(tickets):
            if ticket.previews is not None:
                self._unfinished[index] = Unfinished(index, ticket.request.seed, ticket.previews)
        self.wake()

    def made(self, picture: Picture) -> None:
        """See `Watcher`."""
        index = picture.seed - self.tickets[0].request.seed
        self._unfinished.pop(index, None)
        self._pictures.append((index, picture))
        self.wake()

    def wake(self) -> None:
        """Let `changed` return."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait until something may have changed since the last call."""
        await self._changed.wait()
        self._changed.clear()

    def take_picture(self) -> tuple[int, Picture] | None:
        """Return the next finished image, once, and its place in the request."""
        return self._pictures.popleft() if self._pictures else None

    def take_preview(self) -> tuple[Unfinished, Preview] | None:
        """Return a preview, once; of an image that was not shown yet before others."""
        for image in sorted(self._unfinished.values(), key=lambda image: image.shown):
            if (preview := image.box.take()) is not None:
                return image, preview
        return None

    def delivered(self, image: Unfinished, preview: Preview) -> None:
        """Ask for the preview after this one, which the reader has dealt with."""
        options = self._options
        image.shown += 1
        if options.limit is None or image.shown < options.limit:
            image.box.ask(
                call=preview.call + options.interval_calls, time=self._clock() + options.interval_ms / 1000
            )
