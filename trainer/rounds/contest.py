"""The training of one candidate, judged on the way; its best weights are kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import TaskID
from torch import Tensor

from models.spec import ModelSpec
from models.version import ModelVersion, open_version
from trainer.errors import NonFiniteLossError
from trainer.objectives.neon import extrapolate
from trainer.rounds.config import EvaluationConfig
from trainer.rounds.examiner import Examiner
from trainer.rounds.history import BEST_SHEET
from trainer.rounds.methods import Candidate, Material
from trainer.rounds.records import Trial, Trials, badness
from trainer.rounds.sheets import write_sheet
from trainer.training.loop import Loop, Report
from trainer.training.record import Record
from trainer.versions import candidate as try_version

BEST, TRIAL = "best", "trial"
"""Folders of a candidate: the version with its best weights so far, and the one under trial."""


class Contest:
    """Trains a candidate in `directory`; made anew it goes on where the folder ends.

    Beside what `Loop` and `Record` write the folder holds `evaluations.jsonl`, the version `best/` and images
    of it, `best.png`. The saved state never is ahead of an evaluation that is due, and `best/` is moved
    before the evaluation that found it is written down. So whatever a kill loses is done again, with the
    same outcome.

    Process 0 evaluates while the others wait.

    Args:
        candidate: what is trained.
        directory: its folder.
        material: what the round starts from.
        spec: of the versions that are tried.
        evaluation: when the candidate is judged.
        examiner: judges it.

    Attributes:
        trials: all evaluations so far.
    """

    def __init__(
        self,
        candidate: Candidate,
        directory: Path,
        material: Material,
        *,
        spec: ModelSpec,
        evaluation: EvaluationConfig,
        examiner: Examiner,
    ) -> None:
        self.trials = Trials(directory)
        self._candidate = candidate
        self._directory = directory
        self._material = material
        self._spec = spec
        self._evaluation = evaluation
        self._examiner = examiner
        self._title = f"{directory.parent.name}/{directory.name}"
        self._averages = [average.name for average in material.training.averages]

    def run(self) -> None:
        """Train and evaluate to the end, or until patience or the loss ends it; every process must call it.

        Raises:
            TrainerError: see `Loop.run` and `Examiner.examine`.
        """
        if self._ended:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            self._train()
        except NonFiniteLossError as error:
            # The same steps would end in the same way, so the round goes on without it.
            self._material.view.say("candidate diverged", candidate=self._title, reason=str(error))

    @property
    def best(self) -> ModelVersion:
        """The best version so far; raises ModelNotFoundError where there is none."""
        return open_version(self._directory / BEST)

    def describe(self, trial: Trial) -> str:
        """Return how the weights of a trial were made, for their lineage."""
        step = "" if trial.w is None else f", w {trial.w:g}"
        seed = self._material.training.seed
        return f"{self._candidate.description}, {trial.images} images, {trial.average}{step}, seed {seed}"

    @property
    def _stops(self) -> list[int]:
        """After how many images the candidate is judged: where whole steps pass the ends of the intervals."""
        training, every = self._material.training, self._evaluation.every_images
        ends = (*range(every, training.images, every), training.images)
        return sorted({-(-end // training.batch) * training.batch for end in ends})

    @property
    def _ended(self) -> bool:
        last = self.trials.images
        if not self._is_judged(last):
            return False
        patience = self._evaluation.patience
        weary = patience is not None and self.trials.since_best(self._evaluation.metric) >= patience
        return weary or last == self._stops[-1]

    def _is_judged(self, images: int) -> bool:
        due = {(average, w) for average in self._averages for w in self._candidate.strengths}
        return due <= self.trials.known(images)

    def _train(self) -> None:
        network, objective = self._candidate.build()
        material = self._material
        loop: Loop[Any] = Loop(network, objective, material.training, self._directory, material.processes)
        bar = material.view.bar(self._title, material.training.images, loop.seen)
        leads = material.processes.leads
        with Record(self._directory, loop.seen) if leads else nullcontext() as record:
            for images in self._stops:
                if loop.seen < images:
                    for report in loop.run(until=images):
                        self._show(report, bar, record)
                if not self._is_judged(images):
                    self._judge(loop, record)
                    self._show_best(bar)
                if self._ended:
                    break
        shutil.rmtree(self._directory / TRIAL, ignore_errors=True)

    def _show(self, report: Report, bar: TaskID, record: Record | None) -> None:
        shown = {
            name: report.values[name]
            for name in ("loss", "real", "fake", "accuracy")
            if name in report.values
        }
        self._material.view.show(bar, completed=report.images, figures={"images/s": report.rate, **shown})
        if record is not None:
            record.scalars(report.images, {**report.values, "images_per_second": report.rate})

    def _show_best(self, bar: TaskID) -> None:
        metric = self._evaluation.metric
        best = self.trials.best(metric)
        if best is not None:
            figures = {
                "last": getattr(self.trials.all[-1].figures, metric),
                "best": getattr(best.figures, metric),
            }
            self._material.view.show(bar, figures=figures)

    def _judge(self, loop: Loop[Any], record: Record | None) -> None:
        sheets: dict[Trial, Image.Image] = {}
        with self._material.view.phase("evaluation", candidate=self._title, images=loop.seen):
            for average in self._averages:
                weights = loop.weights(average)  # All processes hold a part of them.
                if record is not None:
                    sheets |= self._judge_average(average, weights, loop.seen)
        if record is not None:
            self._record(record, sheets)
        self._material.processes.wait()
        self.trials.read()

    def _judge_average(
        self, average: str, weights: Mapping[str, Tensor], images: int
    ) -> dict[Trial, Image.Image]:
        known = self.trials.known(images)
        sheets = {}
        for w in self._candidate.strengths:
            if (average, w) not in known:
                tried = weights if w is None else extrapolate(self._origin, weights, w)
                trial, sheet = self._try(average, w, tried, images)
                sheets[trial] = sheet
        return sheets

    def _record(self, record: Record, sheets: Mapping[Trial, Image.Image]) -> None:
        for trial in sheets:
            name = trial.average if trial.w is None else f"{trial.average}-w{trial.w:g}"
            figures = trial.figures.model_dump(exclude_none=True, exclude={"images"})
            record.scalars(trial.images, {f"{name}/{figure}": value for figure, value in figures.items()})
        best = min(sheets, key=lambda trial: badness(trial.figures, self._evaluation.metric))
        record.grid(best.images, sheets[best])

    def _try(
        self, average: str, w: float | None, weights: Mapping[str, Tensor], images: int
    ) -> tuple[Trial, Image.Image]:
        """Judge weights; return the outcome and a sheet of images."""
        kept = {name: self._material.reference.path(net.weights) for name, net in self._spec.networks.items()}
        version = try_version(self._directory / TRIAL, self._spec, {**kept, "main": weights})
        evaluation, sheet = self._examiner.examine(version)
        trial = Trial(images=images, average=average, w=w, figures=evaluation.generated)
        metric = self._evaluation.metric
        best = self.trials.best(metric)
        if best is None or badness(trial.figures, metric) < badness(best.figures, metric):
            shutil.rmtree(self._directory / BEST, ignore_errors=True)
            version.directory.rename(self._directory / BEST)
            write_sheet(self._directory / BEST_SHEET, sheet)
        self.trials.add(trial)
        return trial, sheet

    @cached_property
    def _origin(self) -> Mapping[str, Tensor]:
        return self._material.reference.network().state_dict()
