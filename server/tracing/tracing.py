"""Spans of what happens to the rows of a request; FastAPI makes that of the request itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from opentelemetry import trace
from opentelemetry.trace import Span, TracerProvider

from server.request_id import REQUEST_ID
from server.scheduling.ticket import Ticket
from server.tracing.journal import Call


class Tracing:
    """Makes spans below that of a request: queue, calls, decode and encode of each of its rows.

    Rows are told once they are done, from their journals, so that no span is open while engines work.

    Attributes:
        provider: of OpenTelemetry's SDK; FastAPI makes the requests' spans with it.
        shutdown: sends what is left; may block.
    """

    def __init__(
        self,
        provider: TracerProvider,
        shutdown: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make spans with `provider`; `clock` gives seconds and is the worker's."""
        self.provider = provider
        self._tracer = trace.get_tracer("ddo-serve", tracer_provider=provider)
        self._clock = clock
        self.shutdown = shutdown

    def rows(self, tickets: Sequence[Ticket]) -> None:
        """Tell what happened to the rows of the current request, finished or not."""
        parent = trace.get_current_span()
        if not parent.is_recording():
            return
        now = self._clock()
        parent.set_attributes(
            {
                "ddo.model": tickets[0].model.name,
                "ddo.version": tickets[0].model.number,
                "ddo.images": len(tickets),
            }
        )
        epoch_ns = time.time_ns() - round(now * 1e9)
        context = trace.set_span_in_context(parent)
        for index, ticket in enumerate(tickets):
            attributes: dict[str, str | int] = {
                "ddo.model": ticket.model.name,
                "ddo.version": ticket.model.number,
                "ddo.image": index,
                "ddo.request_id": _request_id(),
            }
            for name, started, ended in _phases(ticket, now):
                span = self._tracer.start_span(
                    name, context, attributes=attributes, start_time=epoch_ns + round(started * 1e9)
                )
                if name == "calls" and ticket.journal is not None:
                    _tell_calls(span, ticket.journal.calls, epoch_ns)
                span.end(epoch_ns + round(ended * 1e9))


def _tell_calls(span: Span, calls: Sequence[Call], epoch_ns: int) -> None:
    span.set_attribute("ddo.calls", len(calls))
    for call in calls:
        attributes: dict[str, str | int | float] = {
            "ddo.lane": call.lane,
            "ddo.rows": call.rows,
            "ddo.seconds": call.ended - call.started,
        }
        span.add_event("call", attributes, epoch_ns + round(call.started * 1e9))


def _phases(ticket: Ticket, now: float) -> Iterator[tuple[str, float, float]]:
    """Yield name, start and end of each phase that began; one that has not ended ends now."""
    journal = ticket.journal
    if journal is None:
        return
    calls = journal.calls
    yield "queue", ticket.arrival, calls[0].started if calls else now
    if calls:
        yield "calls", calls[0].started, calls[-1].ended
    if journal.decoding is not None:
        yield "decode", journal.decoding, ticket.finished or now
    if journal.encoding is not None:
        yield "encode", journal.encoding, journal.encoded or now


def _request_id() -> str:
    return REQUEST_ID.get()
