"""What happened to one row, and when. It knows nothing of OpenTelemetry."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Call:
    """One engine call that a row took part in.

    Attributes:
        lane: the kind of the call.
        rows: how many rows shared it.
        started, ended: seconds on the worker's clock.
    """

    lane: str
    rows: int
    started: float
    ended: float


@dataclass(slots=True)
class Journal:
    """A row's way, in seconds on the worker's clock; None for what has not happened.

    Attributes:
        calls: its engine calls so far.
        decoding: when the engine began to turn its state into pixels.
        encoding: when its file was begun.
        encoded: when its file was there.
    """

    calls: list[Call] = field(default_factory=list)
    decoding: float | None = None
    encoding: float | None = None
    encoded: float | None = None
