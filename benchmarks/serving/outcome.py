"""What became of one request, as its client saw it."""

from __future__ import annotations

from dataclasses import dataclass

OK = "ok"
LEFT = "left"
"""The client closed the connection, as it meant to."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. Times are seconds after the start of its schedule.

    Attributes:
        index: of the request in its schedule.
        due_s: when it was to be sent.
        sent_s: when the client sent it: later where all connections were busy, or the client itself.
        ended_s: when the answer, or the error, was complete.
        kind: `ok`, `left`, a problem's name (`queue-full`), `http-500` where there is none, `connection`
            or `timeout`.
        status: of HTTP; 0 where no answer came.
        version: of the model that made the images.
        images: how many.
        digest: of the images' bytes, together.
        queue_ms, compute_ms: as the server tells them.
        preview_s: when the first preview came.
    """

    index: int
    due_s: float
    sent_s: float
    ended_s: float
    kind: str
    status: int = 0
    version: int | None = None
    images: int = 0
    digest: str | None = None
    queue_ms: float | None = None
    compute_ms: float | None = None
    preview_s: float | None = None

    @property
    def latency_s(self) -> float:
        """Seconds from when the request was due: a client that falls behind makes no request look fast."""
        return self.ended_s - self.due_s
