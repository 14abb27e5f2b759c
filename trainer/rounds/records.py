"""What a run leaves on disk beside weights and pools: all that it, or a report on it, needs to go on.

Every file appears whole or not at all, and only once all that it tells of is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from models.frozen import FrozenModel
from trainer.data.replacing import replacing
from trainer.errors import TrainerError
from trainer.evaluation.judge import Figures
from trainer.rounds.config import Metric, RoundsConfig


class RunRecord(FrozenModel):
    """`run.json`: what the run is.

    Attributes:
        config: as it was started.
        parent: `NAME/NUMBER` of the version that the first round starts from.
    """

    config: RoundsConfig
    parent: str


class Trial(FrozenModel):
    """A line of `evaluations.jsonl`: how one set of weights fares.

    Attributes:
        images: of training.
        average: name of the moving average.
        w: strength of Neon's step; None for DDO.
        figures: under the evaluation's plan.
    """

    images: int
    average: str
    w: float | None
    figures: Figures


class RoundResult(FrozenModel):
    """`result.json`: the best of a round.

    Attributes:
        round: from 1.
        candidate: folder of the best.
        images, average, w, figures: see `Trial`.
        version: `NAME/NUMBER` that it was published as; None: it is no better than the parent.
        parent: `NAME/NUMBER` of the round's reference.
    """

    round: int
    candidate: str
    images: int
    average: str
    w: float | None
    figures: Figures
    version: str | None
    parent: str


M = TypeVar("M", bound=FrozenModel)
"""Which record a file holds."""


def read_record(path: Path, kind: type[M]) -> M | None:
    """Return the record in `path`, None where there is none yet.

    Raises:
        TrainerError: the file is damaged.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise TrainerError(f"cannot read {path}: {error}") from error


def write_record(path: Path, record: FrozenModel) -> None:
    """Write a record as JSON; raises DataError where it cannot be written."""
    with replacing(path) as file:
        file.write(record.model_dump_json(indent=2).encode() + b"\n")


class Trials:
    """The evaluations of one candidate, in order, as they lie in its `evaluations.jsonl`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "evaluations.jsonl"
        self.all: tuple[Trial, ...] = ()
        self.read()

    def read(self) -> None:
        """Read the file anew.

        Raises:
            TrainerError: it is damaged.
        """
        try:
            lines = self._path.read_text().splitlines()
            self.all = tuple(Trial.model_validate_json(line) for line in lines)
        except FileNotFoundError:
            self.all = ()
        except (OSError, ValidationError) as error:
            raise TrainerError(f"cannot read {self._path}: {error}") from error

    def add(self, trial: Trial) -> None:
        """Add a line; raises DataError where it cannot be written."""
        trials = (*self.all, trial)
        with replacing(self._path) as file:
            file.writelines(each.model_dump_json().encode() + b"\n" for each in trials)
        self.all = trials

    @property
    def images(self) -> int:
        """After how many images of training the last one was; 0 where there is none yet."""
        return self.all[-1].images if self.all else 0

    def known(self, images: int) -> set[tuple[str, float | None]]:
        """Return which averages and strengths were evaluated after so many images."""
        return {(trial.average, trial.w) for trial in self.all if trial.images == images}

    def best(self, metric: Metric) -> Trial | None:
        """Return the best trial, of equals the first; None where there is none yet."""
        return min(self.all, key=lambda trial: badness(trial.figures, metric), default=None)

    def since_best(self, metric: Metric) -> int:
        """Return how many evaluations there were after the best one's; those of one moment count once."""
        best = self.best(metric)
        return len({t.images for t in self.all if best is not None and t.images > best.images})


def badness(figures: Figures, metric: Metric) -> float:
    """Return a number that is lower for better figures.

    Raises:
        TrainerError: the evaluation has no such figure.
    """
    value = getattr(figures, metric)
    if value is None:
        raise TrainerError(f"there is no {metric} to choose by: the real images were not compared with")
    return float(value if metric == "frechet_distance" else -value)
