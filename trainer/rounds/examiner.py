"""Judges the models of a run, all under the same plan."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress

from engines import load
from engines.base import Engine
from engines.pixels import Pixels
from models.version import ModelVersion
from trainer.data.source import TrainingImages
from trainer.evaluation.evaluate import Evaluation, JudgedModel, evaluate, generated_batches, keeping
from trainer.evaluation.extractors import open_extractor
from trainer.evaluation.images import RealImages
from trainer.evaluation.judge import Judge
from trainer.evaluation.statistics import ReferenceStatistics
from trainer.grid import contact_sheet
from trainer.rounds.config import EvaluationConfig

SHEET_IMAGES, SHEET_COLUMNS = 64, 8


class Examiner:
    """Knows the real images and what every model is asked for.

    Args:
        config: what is asked.
        real: the images that are trained on.
        source: where they come from, for the record.
        device: where everything runs.
        progress: where to show how far it is.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        real: TrainingImages,
        source: str,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._config = config
        self._real = real
        self._source = source
        self._device = device
        self._progress = progress

    @cached_property
    def _judge(self) -> Judge:
        """Made when it is first asked: a run that has ended needs no features of all the real images."""
        config = self._config
        extractor = open_extractor(config.extractor, self._device, config.extractor_weights)
        if config.reference is not None:
            return Judge(extractor, self._progress, statistics=ReferenceStatistics.load(config.reference))
        real = RealImages(self._real, self._source)
        return Judge(extractor, self._progress, real=real, neighbours=config.neighbours)

    def examine(self, version: ModelVersion) -> tuple[Evaluation, Image.Image]:
        """Return the figures of a version, and a sheet of its first images.

        Raises:
            TrainerError: there is nothing to compare with.
            EngineError: the engine cannot be built.
            InvalidRequestError: the model cannot make the plan's images.
        """
        judge, classes = self._judge, len(version.spec.class_names)
        engine: Engine[Any] = load(version, self._config.engine(str(self._device)))
        plan = self._config.plan.resolved(engine, classes)
        first: list[Pixels] = []
        made = generated_batches(engine, plan, classes, self._progress)
        batches = keeping(made, first, SHEET_IMAGES)
        evaluation = evaluate(judge, batches, model=JudgedModel.of(version), plan=plan)
        return evaluation, contact_sheet(np.stack(first), columns=SHEET_COLUMNS)
