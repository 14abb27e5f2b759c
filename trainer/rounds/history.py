"""A run of rounds as its files tell it, finished or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from trainer.errors import TrainerError
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.judge import Figures
from trainer.rounds.config import Metric
from trainer.rounds.records import RoundResult, RunRecord, Trial, Trials, badness, read_record
from trainer.training.record import LOG_FILE

BASE_SHEET, BEST_SHEET = "base.png", "best.png"
"""Images of the parent, in the run's folder, and of a candidate's best weights, in its own."""


@dataclass(frozen=True)
class CandidateHistory:
    """The training of one candidate.

    Attributes:
        name: of its folder.
        trials: its evaluations.
        log: what its steps measured, a line a report.
        sheet: file with images of its best weights; it may be missing.
    """

    name: str
    trials: Trials
    log: Sequence[Mapping[str, Any]]
    sheet: Path

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read a candidate's folder; raises TrainerError where a file is damaged."""
        return cls(directory.name, Trials(directory), _log(directory / LOG_FILE), directory / BEST_SHEET)


@dataclass(frozen=True)
class RoundHistory:
    """One round.

    Attributes:
        number: from 1.
        reference: figures of what it started from.
        candidates: those that were begun, by name.
        result: how it ended; None: it has not.
    """

    number: int
    reference: Figures
    candidates: Sequence[CandidateHistory]
    result: RoundResult | None

    def best(self, metric: Metric) -> tuple[CandidateHistory, Trial] | None:
        """Return what the round chose, or the best so far; None where nothing was judged yet."""
        judged = ((each, each.trials.best(metric)) for each in self.candidates)
        found = [(candidate, trial) for candidate, trial in judged if trial is not None]
        if self.result is not None:
            found = [pair for pair in found if pair[0].name == self.result.candidate]
        return min(found, key=lambda pair: badness(pair[1].figures, metric), default=None)


@dataclass(frozen=True)
class RunHistory:
    """A whole run.

    Attributes:
        record: what it is.
        base: figures of its parent.
        base_sheet: file with images of the parent; it may be missing.
        rounds: those that were begun.
    """

    record: RunRecord
    base: Evaluation
    base_sheet: Path
    rounds: Sequence[RoundHistory]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the folder of a run.

        Raises:
            TrainerError: it is none, its parent is not judged yet, or a file is damaged.
        """
        record = read_record(directory / "run.json", RunRecord)
        if record is None:
            raise TrainerError(f"{directory} holds no run of rounds: it has no run.json")
        base = read_record(directory / "base.json", Evaluation)
        if base is None:
            raise TrainerError(f"{directory} has nothing to tell yet: {record.parent} is not judged")
        rounds = _rounds(directory, record.config.rounds, base.generated)
        return cls(record, base, directory / BASE_SHEET, rounds)

    @property
    def metric(self) -> Metric:
        """What the best is chosen by."""
        return self.record.config.evaluation.metric

    @property
    def titles(self) -> dict[str, str]:
        """The figures that the run has, by name, and what a reader calls them; the metric comes first."""
        names = self.base.generated.model_dump(exclude_none=True, exclude={"images"})
        titles = {name: name.replace("_", " ").capitalize() for name in (self.metric, *names)}
        return {**titles, "frechet_distance": self.base.frechet.name}

    @property
    def round_images(self) -> int:
        """Images of training in a round that runs to its end, in whole steps."""
        training = self.record.config.training
        return -(-training.images // training.batch) * training.batch

    @property
    def published(self) -> Mapping[str, RoundResult]:
        """The rounds that brought something better, by the version that they published."""
        results = [each.result for each in self.rounds if each.result is not None]
        return {result.version: result for result in results if result.version is not None}

    @property
    def best(self) -> tuple[str, Figures]:
        """The best version, the parent where nothing was published, and its figures."""
        versions = {self.record.parent: self.base.generated}
        versions |= {label: result.figures for label, result in self.published.items()}
        return list(versions.items())[-1]

    def fate(self, candidate: CandidateHistory, round_: RoundHistory) -> str:
        """Return in a few words how the training of a round's candidate ended."""
        patience = self.record.config.evaluation.patience
        if candidate.trials.images >= self.round_images:
            return "trained to the end"
        if patience is not None and candidate.trials.since_best(self.metric) >= patience:
            return "ended early: nothing better came"
        return "unfinished" if round_.result is None else "diverged"


def value_of(figures: Figures, name: str) -> float | None:
    """Return a figure by its name."""
    value: float | None = getattr(figures, name)
    return value


def _rounds(directory: Path, most: int, reference: Figures) -> list[RoundHistory]:
    rounds: list[RoundHistory] = []
    for number in range(1, most + 1):
        folder = directory / f"round-{number:02d}"
        if not folder.is_dir():
            break
        result = read_record(folder / "result.json", RoundResult)
        begun = sorted(path.parent for path in folder.glob(f"*/{LOG_FILE}"))
        rounds.append(
            RoundHistory(number, reference, [CandidateHistory.read(path) for path in begun], result)
        )
        if result is not None and result.version is not None:
            reference = result.figures
    return rounds


def _log(path: Path) -> list[dict[str, Any]]:
    """Read a log; the last line of one that is being written may be half there."""
    try:
        lines = path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except (OSError, ValueError) as error:
        raise TrainerError(f"cannot read {path}: {error}") from error
