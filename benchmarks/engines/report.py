"""Tables and JSON of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Column, Table

from benchmarks.engines.comparison import Measurement


@dataclass(frozen=True)
class Peak:
    """Fastest bfloat16 matrix product of this machine and this many threads, by the clock and by CPU time.

    Attributes:
        wall: floating-point operations a second.
        compute: floating-point operations a CPU second.
        product: which one it was.
    """

    wall: float
    compute: float
    product: str


@dataclass(frozen=True)
class Report:
    """One comparison.

    Attributes:
        title: what was computed.
        flops: floating-point operations of each case, by its label.
        images: images of each case.
        measured: what each way did, by name; the first is what the others' speeds are told in.
        peak: of the machine.
    """

    title: str
    flops: Mapping[str, float]
    images: Mapping[str, int]
    measured: Mapping[str, Measurement]
    peak: Peak

    def speedup(self, name: str, label: str, *, compute: bool = False) -> float | None:
        """Return how many times as fast as the first way it is, by the clock or in CPU time."""
        first, own = next(iter(self.measured.values())), self.measured[name]
        before, after = ((each.compute(label) if compute else each.wall(label)) for each in (first, own))
        return before / after if before and after else None

    def share(self, name: str, label: str, *, compute: bool = False) -> float | None:
        """Return its operations a second, as a share of the machine's peak."""
        own = self.measured[name]
        seconds, peak = (
            (own.compute(label), self.peak.compute) if compute else (own.wall(label), self.peak.wall)
        )
        return self.flops[label] / seconds / peak if seconds else None

    def tables(self) -> Iterator[Table]:
        """Yield a table for every case, with a line for every way, and one of what came before.

        CPU time is that of all threads together; it leaves out what other programs took of the machine.
        """
        for label, images in self.images.items():
            table = Table(
                Column(no_wrap=True),
                *("ms an image", "CPU ms", "faster", "in CPU time", "of peak", "in CPU time", "error"),
                title=f"{self.title}: {label}",
            )
            for name, own in self.measured.items():
                wall, compute = own.wall(label), own.compute(label)
                table.add_row(
                    name,
                    _shown(wall and 1000 * wall / images, ".0f"),
                    _shown(compute and 1000 * compute / images, ".0f"),
                    _shown(self.speedup(name, label), ".2f"),
                    _shown(self.speedup(name, label, compute=True), ".2f"),
                    _shown(self.share(name, label), ".0%"),
                    _shown(self.share(name, label, compute=True), ".0%"),
                    _shown(own.errors.get(label), ".1e"),
                )
            yield table
        starts = Table(Column(no_wrap=True), "s", "", title=f"{self.title}: start to ready")
        for name, own in self.measured.items():
            failure = f"failed: {own.failure}" if own.failure else ""
            starts.add_row(name, _shown(own.ready_seconds, ".1f"), failure)
        yield starts

    def record(self) -> dict[str, Any]:
        """Return all of it for JSON, seconds as measured."""
        return asdict(self)


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
