"""An answer's head and body in one system call."""

from __future__ import annotations

import asyncio
from typing import Any


class WholeAnswers:
    """A transport that sends what is written in one turn of the event loop together.

    uvicorn writes the head and the body of an answer apart, and each write is a system call, a packet and a
    client that wakes up. All else is the wrapped transport's own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Write to `transport`, on `loop`'s thread."""
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data` at the end of this turn."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send what was written and close."""
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes were not taken by the client's side."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._parts))

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))
