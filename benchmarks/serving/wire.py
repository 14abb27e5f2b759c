"""HTTP as cheaply as Python has it: a comfortable client costs about as much as the server it measures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

# Servers close idle connections (uvicorn: after 5 s); one that is about to be closed is not used again.
IDLE_S = 3.0
PREVIEW = b"event: preview"


@dataclass(slots=True)
class Answer:
    """A response; `preview` is when its first preview came, on `time.monotonic`."""

    status: int
    body: bytes
    preview: float | None

    def json(self) -> Any:
        """Return the body's JSON.

        Raises:
            ValueError: it holds none.
        """
        return json.loads(self.body)

    def events(self) -> list[tuple[str, Any]]:
        """Return the names and data of the server-sent events in the body.

        Raises:
            ValueError: one of them holds no JSON.
        """
        events = []
        for block in self.body.decode().replace("\r\n", "\n").split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line[1:])
            if "data" in fields:
                events.append((fields.get("event", "message"), json.loads(fields["data"])))
        return events


class Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self) -> None:
        """Wait for `connection_made`."""
        self.used = time.monotonic()
        self.reusable = True
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Answer] | None = None
        self._body = bytearray()
        self._preview: float | None = None

    async def exchange(self, head: bytes, body: bytes) -> Answer:
        """Send a request and return its answer.

        Raises:
            ConnectionError: the server closed the connection, or answered something else than HTTP.
        """
        if self._transport is None or not self.reusable:
            raise ConnectionError("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        try:
            return await self._answer
        finally:
            self._answer = None
            self.used = time.monotonic()

    def close(self) -> None:
        """Close the connection at once, whatever is in flight."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # A cast: uvloop's transports are no subclass.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"not HTTP: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.reusable = False
        self._fail(ConnectionError(f"the server closed the connection: {exc}"))

    def on_message_begin(self) -> None:
        """See `httptools`."""
        self._body = bytearray()
        self._preview = None

    def on_body(self, body: bytes) -> None:
        """See `httptools`."""
        seen = max(0, len(self._body) - len(PREVIEW))
        self._body += body
        if self._preview is None and self._body.find(PREVIEW, seen) >= 0:
            self._preview = time.monotonic()

    def on_message_complete(self) -> None:
        """See `httptools`."""
        self.reusable = self.reusable and self._parser.should_keep_alive()
        if self._answer is not None and not self._answer.done():
            answer = Answer(self._parser.get_status_code(), bytes(self._body), self._preview)
            self._answer.set_result(answer)

    def _fail(self, error: ConnectionError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class Pool:
    """Connections to one server, kept and used again, at most `size` at once."""

    def __init__(self, url: str, size: int) -> None:
        """Open none before the first request."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._netloc = parts.netloc
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(size)

    async def post(self, path: str, body: Mapping[str, Any], accept: str) -> Answer:
        """Send a request; when this is cancelled its connection is closed.

        Raises:
            OSError: no connection, or one that ended too soon.
        """
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self._netloc}\r\ncontent-type: application/json\r\n"
            f"accept: {accept}\r\n"
        ).encode()
        async with self._free:
            connection = await self._connection()
            try:
                answer = await connection.exchange(head, json.dumps(body).encode())
            except BaseException:
                connection.close()
                raise
            if connection.reusable:
                self._idle.append(connection)
            else:
                connection.close()
            return answer

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and time.monotonic() - connection.used < IDLE_S:
                return connection
            connection.close()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port)
        return connection
