"""A file that arrives in parts: what came before the connection broke is not asked for again."""

from __future__ import annotations

from pathlib import Path

import httpx


class Download:
    """Bytes of one answer, written beside `path` until all are there."""

    def __init__(self, path: Path) -> None:
        """Begin with nothing."""
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._etag = ""
        self._total: int | None = None
        self._part.write_bytes(b"")
        self.received = 0

    @property
    def complete(self) -> bool:
        """Whether all bytes are there."""
        return self.received == self._total

    @property
    def headers(self) -> dict[str, str]:
        """Headers that ask for what is missing."""
        if not self.received or not self._etag:
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self._etag}

    def begin(self, response: httpx.Response) -> None:
        """Take an answer's headers: it goes on where the last one ended, or has all from the start."""
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            self._part.write_bytes(b"")
            self.received = 0
        self._etag = response.headers.get("ETag", "")
        self._total = self.received + int(response.headers["Content-Length"])

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        with self._part.open("ab") as file:
            file.write(chunk)
        self.received += len(chunk)

    def finish(self) -> Path:
        """Give the file its name and return it."""
        self._part.replace(self._path)
        return self._path
