"""Self-play rounds (Zheng et al. 2025, arXiv 2503.01103): the best of a round is the next one's reference."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors import SafetensorError

from models.registry import Registry
from models.spec import Lineage
from models.version import ModelVersion
from trainer.data.open import open_images
from trainer.errors import TrainerError
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.judge import Figures
from trainer.rounds.checks import check_parent, check_same
from trainer.rounds.config import RoundsConfig
from trainer.rounds.contest import Contest
from trainer.rounds.examiner import Examiner
from trainer.rounds.history import BASE_SHEET
from trainer.rounds.methods import Material, candidates
from trainer.rounds.occupied import occupied
from trainer.rounds.pool import Pool
from trainer.rounds.publication import (
    adopt,
    check_writable,
    find_parent,
    label_of,
    open_labelled,
    publish_best,
    trial_spec,
)
from trainer.rounds.records import M, RoundResult, RunRecord, Trial, badness, read_record, write_record
from trainer.rounds.report import REPORT_FILE, write_report
from trainer.rounds.sheets import write_sheet
from trainer.rounds.view import View
from trainer.training.processes import Processes


class Run:
    """A run of rounds in a folder; made anew it goes on where the folder ends, to the same bits.

    What is done is read from the files alone: `run.json` (what the run is), `base.json` (figures of its
    parent; `base.png`, images of it), and for each round `round-01/pool/` (see `Pool`), a folder for each
    candidate (see `Contest`) and `result.json`, which ends it. `report.html` tells of all of them.

    Every process must make and run it. Process 0 writes everything but the pool, which all share.

    Args:
        config: of the run.
        directory: its folder.
        registry: where versions come from and go to.
        processes: who trains.
        view: shows it.
    """

    def __init__(
        self, config: RoundsConfig, directory: Path, registry: Registry, processes: Processes, view: View
    ) -> None:
        self._config = config
        self._directory = directory
        self._registry = registry
        self._processes = processes
        self._view = view
        self._images = open_images(config.data)
        self._examiner = Examiner(
            config.evaluation, self._images, str(config.data.path), processes.device, view.progress
        )

    def run(self) -> ModelVersion:
        """Run all rounds, or until one brings nothing better, and return the best version.

        Raises:
            TrainerError: the parent, the data or the folder do not fit, something cannot be written, or
                every candidate of a round diverged before it was judged.
            ModelError: the parent is missing or damaged.
            EngineError: the engine of a version cannot be built.
            InvalidRequestError: the parent cannot make the images that are asked for.
        """
        # In TF32 the log-ratio, a small difference of large sums, is lost; cuDNN uses it if it is not told.
        torch.backends.cudnn.allow_tf32 = False
        with occupied(self._directory) if self._processes.leads else nullcontext():
            try:
                return self._run()
            except (OSError, SafetensorError) as error:
                raise TrainerError(
                    f"cannot write to {self._directory}: {error}. What was finished is intact; make room and "
                    "start the same command again."
                ) from error

    def _run(self) -> ModelVersion:
        reference, figures = self._start()
        for number in range(1, self._config.rounds + 1):
            result = self._round(number, reference, figures)
            if result.version is None:
                break
            reference, figures = open_labelled(self._registry, result.version), result.figures
        self._report()
        return reference

    def _start(self) -> tuple[ModelVersion, Figures]:
        """Return the version that the first round starts from, and its figures."""
        if self._processes.leads:
            self._settle()
        self._processes.wait()
        record = _require(self._directory / "run.json", RunRecord)
        reference = open_labelled(self._registry, record.parent)
        path = self._directory / "base.json"
        if self._processes.leads and not path.exists():
            with self._view.phase("evaluation of the parent", parent=record.parent):
                evaluation, sheet = self._examiner.examine(reference)
                write_sheet(self._directory / BASE_SHEET, sheet)
                write_record(path, evaluation)
        self._processes.wait()
        return reference, _require(path, Evaluation).generated

    def _settle(self) -> None:
        """Decide once and for all what the run is."""
        path = self._directory / "run.json"
        record = read_record(path, RunRecord)
        check_writable(self._registry)
        if record is None:
            parent = find_parent(self._registry, self._config.parent)
            check_parent(self._config, parent.spec, self._images)
            record = RunRecord(config=self._config, parent=label_of(adopt(self._registry, parent)))
        else:
            check_same(record, self._config)
        write_record(path, record.model_copy(update={"config": self._config}))

    def _round(self, number: int, reference: ModelVersion, figures: Figures) -> RoundResult:
        """Run a round, or read how it ended."""
        directory = self._directory / f"round-{number:02d}"
        path = directory / "result.json"
        result = read_record(path, RoundResult)
        if result is not None:
            return result
        self._report()
        contests = self._contests(directory, number, reference)
        if self._processes.leads:
            result = self._conclude(directory, reference, figures, contests, number)
            write_record(path, result)
            self._view.say("round ended", **result.model_dump(exclude={"figures"}))
        self._processes.wait()
        return _require(path, RoundResult)

    def _contests(self, directory: Path, number: int, reference: ModelVersion) -> dict[str, Contest]:
        """Train every candidate of a round, in folders of these names."""
        config, view = self._config, self._view
        names = self._images.class_names
        pool = Pool(directory / "pool", config.pool, reference, number=number, class_names=names)
        with view.phase("pool of fakes", round=number, reference=label_of(reference)):
            pool.fill(self._processes, view)
        training = config.training.model_copy(update={"seed": config.training.seed + number})
        material = Material(
            reference=reference,
            real=self._images,
            fake=pool.open(),
            run=self._directory,
            directory=directory,
            training=training,
            processes=self._processes,
            view=view,
        )
        with view.phase("preparation", round=number):
            prepared = candidates(config.method, material)
        contests: dict[str, Contest] = {}
        for candidate in prepared:
            contests[candidate.name] = contest = Contest(
                candidate,
                directory / candidate.name,
                material,
                spec=trial_spec(reference, config.name),
                evaluation=config.evaluation,
                examiner=self._examiner,
            )
            with view.phase("training", round=number, candidate=candidate.name):
                contest.run()
        return contests

    def _conclude(
        self,
        directory: Path,
        reference: ModelVersion,
        figures: Figures,
        contests: Mapping[str, Contest],
        number: int,
    ) -> RoundResult:
        """Publish the best of a round if it is better than its reference."""
        metric = self._config.evaluation.metric
        bests = {name: contest.trials.best(metric) for name, contest in contests.items()}
        found = {name: best for name, best in bests.items() if best is not None}
        if not found:
            raise TrainerError(
                f"every candidate of {directory} diverged before it was judged: lower the learning rate or "
                "every_images in a new run"
            )
        name = min(found, key=lambda name: badness(found[name].figures, metric))
        best, version = found[name], None
        if badness(best.figures, metric) < badness(figures, metric):
            version = label_of(self._publish(contests[name], best, reference))
        return RoundResult(
            round=number, candidate=name, **dict(best), version=version, parent=label_of(reference)
        )

    def _report(self) -> None:
        """Renew the report: where a round begins, and at the end, so that it tells of every round before."""
        if not self._processes.leads:
            return
        try:
            write_report(self._directory, self._directory / REPORT_FILE)
        except TrainerError as error:
            self._view.say("the report is not renewed", reason=str(error))  # No reason to stop training.

    def _publish(self, contest: Contest, best: Trial, reference: ModelVersion) -> ModelVersion:
        evaluation = _require(self._directory / "base.json", Evaluation)
        metrics = evaluation.model_copy(update={"generated": best.figures}).metrics()
        lineage = Lineage(
            source=contest.describe(best),
            parent=label_of(reference),
            round=reference.spec.lineage.round + 1,
            metrics=metrics,
        )
        with self._view.phase("publishing", source=lineage.source):
            return publish_best(self._registry, contest.best, reference, lineage, self._view.progress)


def _require(path: Path, kind: type[M]) -> M:
    record = read_record(path, kind)
    if record is None:
        raise TrainerError(f"{path} is missing; restore it, or start anew in another folder")
    return record
