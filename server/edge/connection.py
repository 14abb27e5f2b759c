"""A connection with limits: heads of requests in bytes and time, answers that nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.api.disconnect import EXTENSION
from server.api.problems import connection_problem
from server.edge.settings import ConnectionSettings
from server.edge.whole_answers import WholeAnswers
from server.errors import (
    HeadTimeoutError,
    HeadTooLargeError,
    MalformedRequestError,
    RejectedError,
    TooManyConnectionsError,
)

log = structlog.get_logger(__name__)

CROWDED_RETRY_S = 1.0


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, bounded."""

    def __init__(self, *args: Any, bounds: ConnectionSettings, **kwargs: Any) -> None:
        """Serve one connection within `bounds`; the rest is uvicorn's."""
        super().__init__(*args, **kwargs)
        self._bounds = bounds
        self._head_bytes = 0
        self._in_head = False
        self._refusal: RejectedError = MalformedRequestError("this is not an HTTP/1.1 request")
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._leavers: set[Callable[[], None]] = set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, unless there are too many connections."""
        super().connection_made(cast(asyncio.Transport, WholeAnswers(transport, self.loop)))
        if len(self.connections) > self._bounds.connections:
            self._refuse(
                TooManyConnectionsError("the server has all the connections it can have", CROWDED_RETRY_S)
            )
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and first of all the work for it: what waits behind it may begin."""
        self._cancel_timers()
        for leave in tuple(self._leavers):
            leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; a head may neither grow nor take time without end."""
        if self.transport.is_closing():
            return
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            # A field that has not ended is in no callback yet.
            self._head_bytes += len(data)
            if self._head_bytes > self._bounds.header_bytes:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """Take the request if its head is within bounds."""
        head = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if head > self._bounds.header_bytes:
            self._refusal = self._too_large()
            raise self._refusal  # The parser stops, and uvicorn asks for `send_400_response`.
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        cast(dict[str, Any], self.scope)["extensions"] = {EXTENSION: {"callbacks": self._leavers}}
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser could not read, as a problem."""
        self._refuse(self._refusal)

    def pause_writing(self) -> None:
        """Begin to watch whether the client takes its answer."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client took it."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._bounds.header_timeout_s, self._head_late)

    def _head_late(self) -> None:
        self._head_timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._await_head()  # The answer of the request before comes first.
        elif self._in_head:
            self._refuse(
                HeadTimeoutError(
                    f"the request's head did not arrive within {self._bounds.header_timeout_s:g} s"
                )
            )
        else:
            self.transport.close()

    def _watch_reader(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self._bounds.read_timeout_s, self._check_reader, waiting)

    def _check_reader(self, waiting: int) -> None:
        if self.transport.get_write_buffer_size() < waiting:
            self._watch_reader()
            return
        self._write_timer = None
        log.warning("a client does not read its answer", unread_bytes=waiting)
        self.transport.abort()

    def _too_large(self) -> HeadTooLargeError:
        return HeadTooLargeError(f"the request's head has more than {self._bounds.header_bytes} bytes")

    def _refuse(self, error: RejectedError) -> None:
        """Answer outside of any request and close."""
        self._cancel_timers()
        if self.transport.is_closing():
            return
        status, headers, body = connection_problem(error)
        head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()

    def _cancel_timers(self) -> None:
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._write_timer = None


def bounded(bounds: ConnectionSettings) -> type[asyncio.Protocol]:
    """Return what makes connections within `bounds`, for `uvicorn.Config(http=...)`."""
    return cast(type[asyncio.Protocol], partial(Connection, bounds=bounds))
