"""A measured figure and what it ought to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure.

    Attributes:
        promise: the module that measured it.
        what: in words.
        value: None where there was nothing to measure, which meets no target.
        target: the least or most that it should be; None: told for its own sake.
        at_least: the target is a lower bound, not an upper one.
        unit: of both.
    """

    promise: str
    what: str
    value: float | None
    target: float | None = None
    at_least: bool = False
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure is as good as it should be."""
        if self.target is None:
            return True
        if self.value is None:
            return False
        return self.value >= self.target if self.at_least else self.value <= self.target


def table(readings: Sequence[Reading]) -> Table:
    """Return all figures against their targets."""
    shown = Table("", "figure", "value", "target", "met", title="Targets")
    last = ""
    for reading in readings:
        bound = "" if reading.target is None else _bound(reading)
        value = "not measured" if reading.value is None else f"{reading.value:.4g} {reading.unit}"
        verdict = "" if reading.target is None else "yes" if reading.met else "NO"
        shown.add_row("" if reading.promise == last else reading.promise, reading.what, value, bound, verdict)
        last = reading.promise
    return shown


def _bound(reading: Reading) -> str:
    return f"{'at least' if reading.at_least else 'at most'} {reading.target:.4g} {reading.unit}"
