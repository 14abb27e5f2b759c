"""What was tried, as Markdown and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from benchmarks.gpu.outcome import Outcome
from models.frozen import FrozenModel


class Tried(FrozenModel):
    """One check of one model in one way."""

    model: str
    way: str
    outcome: Outcome


class Report(FrozenModel):
    """All of a run.

    Attributes:
        machine: the facts that figures depend on.
        tried: in the order of trial.
    """

    machine: dict[str, str]
    tried: tuple[Tried, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many checks ended in each way."""
        found = Counter(each.outcome.status for each in self.tried)
        return {status: found[status] for status in ("pass", "fail", "skipped")}

    def markdown(self) -> str:
        """Return the report as one page."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# Checks on a GPU"
        yield ""
        yield ", ".join(f"{count} {status}" for status, count in self.counts.items()) + "."
        yield ""
        yield "| | |"
        yield "|---|---|"
        for name, value in self.machine.items():
            yield f"| {name} | {value} |"
        for model, tried in groupby(self.tried, key=lambda each: each.model):
            yield ""
            yield f"## {model}"
            yield ""
            yield "| backend | check | | figures |"
            yield "|---|---|---|---|"
            for each in tried:
                outcome = each.outcome
                figures = "; ".join(f"{name}: {value:.4g}" for name, value in outcome.figures.items())
                told = ": ".join(filter(None, (outcome.status, _cell(outcome.detail))))
                yield f"| {each.way} | {outcome.check} | {told} | {figures} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
