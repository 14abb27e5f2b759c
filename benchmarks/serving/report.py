"""A run on file: what was asked, of which machine, and the figures; two of them side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from benchmarks.serving.summary import QUANTILES, Summary

SHOWN = (*QUANTILES, "max")


class ReportError(Exception):
    """A file that holds no run."""


@dataclass(frozen=True, slots=True)
class Report:
    """One run.

    Attributes:
        machine: of `describe_machine`.
        workload: what was sent.
        summary: the figures.
        checked, equal: images that were asked for again alone, and how many of them had the same bytes.
    """

    machine: Mapping[str, Any]
    workload: Mapping[str, Any]
    summary: Summary
    checked: int = 0
    equal: int = 0

    def save(self, file: Path) -> None:
        """Write the run as JSON."""
        file.write_bytes(_ADAPTER.dump_json(self, indent=2) + b"\n")

    @classmethod
    def read(cls, file: Path) -> Report:
        """Read a run that `save` wrote.

        Raises:
            ReportError: the file holds none.
        """
        try:
            return _ADAPTER.validate_json(file.read_bytes())
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"]) or "the file"
            raise ReportError(f"{file} holds no run of `benchmarks load`: {where}: {fault['msg']}") from None

    def tables(self) -> Iterator[Table]:
        """Yield the run's tables: times, then rates and outcomes."""
        summary = self.summary
        times = Table("ms", "mean", *SHOWN, title=f"{summary.requests} requests in {summary.seconds:.1f} s")
        for name, values in _series(summary).items():
            times.add_row(name, *(f"{values[column]:.1f}" for column in ("mean", *SHOWN)))
        yield times
        rates = Table("", "", show_header=False)
        rates.add_row("answers a second", f"{summary.answers_per_s:.1f}")
        rates.add_row("images a second", f"{summary.images_per_s:.1f}")
        rates.add_row(
            f"goodput: answers within {summary.objective_ms:g} ms, a second",
            f"{summary.goodput_per_s:.1f} ({summary.goodput_share:.1%} of requests)",
        )
        rates.add_row("outcomes", ", ".join(f"{kind}: {count}" for kind, count in summary.kinds.items()))
        if self.checked:
            rates.add_row("equal to the same request alone", f"{self.equal} of {self.checked}")
        yield rates


_ADAPTER: TypeAdapter[Report] = TypeAdapter(Report)


def compare(before: Report, after: Report) -> Iterator[Table | str]:
    """Yield how two runs compare: a table of figures, and a line each for other machines and workloads."""
    table = Table("", "first", "second", "second / first")
    first, second = dict(_figures(before.summary)), dict(_figures(after.summary))
    for name, value in first.items():
        if name in second:
            ratio = f"{second[name] / value:.3f}" if value else "-"
            table.add_row(name, f"{value:.2f}", f"{second[name]:.2f}", ratio)
    yield table
    for what, one, other in (
        ("machines", before.machine, after.machine),
        ("workloads", before.workload, after.workload),
    ):
        names = [name for name in one if name != "load_before" and one[name] != other.get(name)]
        if names:
            values = "; ".join(f"{name}: {one[name]} and {other.get(name)}" for name in names)
            yield f"the {what} differ: {values}"


def _series(summary: Summary) -> dict[str, Mapping[str, float]]:
    series = {
        "latency": summary.latency_ms,
        "queue wait": summary.queue_ms,
        "first preview": summary.preview_ms,
        "errors": summary.refusal_ms,
        "client's own delay": summary.lag_ms,
    }
    return {name: values for name, values in series.items() if values}


def _figures(summary: Summary) -> Iterator[tuple[str, float]]:
    yield "answers a second", summary.answers_per_s
    yield "images a second", summary.images_per_s
    yield "goodput a second", summary.goodput_per_s
    yield "goodput, share", summary.goodput_share
    for name, values in _series(summary).items():
        for quantile in ("p50", "p95", "p99"):
            yield f"{name} {quantile}, ms", values[quantile]
    yield "not answered", summary.requests - summary.kinds.get("ok", 0)
