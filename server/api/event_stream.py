"""A stream's events as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from server.settings import Settings
from server.streaming.stream import Event, Stream


class EventStream(EventSourceResponse):
    """The answer that sends a started stream's events; the stream ends with it, sent or not."""

    def __init__(self, stream: Stream, events: AsyncIterator[Event], settings: Settings) -> None:
        """Send events made of those of `stream`, and signs of life between them."""
        super().__init__(
            _messages(events),
            sep="\n",
            ping=settings.heartbeat_s,
            ping_message_factory=lambda: ServerSentEvent(comment="still here", sep="\n"),
            shutdown_grace_period=settings.shutdown_timeout_s,
        )
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, or what there are until the client leaves."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._stream.close()


async def _messages(events: AsyncIterator[Event]) -> AsyncIterator[ServerSentEvent]:
    async for name, data in events:
        yield ServerSentEvent(data.model_dump_json(exclude_none=True), event=name, sep="\n")
