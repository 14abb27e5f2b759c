"""The figures of a model, and everything that they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Self

import numpy as np
from rich.progress import Progress

from engines.base import Engine
from engines.pixels import Pixels
from engines.sampling import R, generate
from models.frozen import FrozenModel
from models.version import ModelVersion
from trainer.errors import DataError
from trainer.evaluation.extractors import distance_name
from trainer.evaluation.features import BATCH, ImageBatch
from trainer.evaluation.images import RealImages
from trainer.evaluation.judge import Figures, Judge, RealFigures
from trainer.evaluation.plan import SamplingPlan


class JudgedModel(FrozenModel):
    """Which model figures are of.

    Attributes:
        name: of the model.
        weights: SHA-256 of the weights of each network by its name, `main` and others.
    """

    name: str
    weights: dict[str, str]

    @classmethod
    def of(cls, version: ModelVersion) -> Self:
        """Return the record of a version."""
        spec = version.spec
        weights = {name: spec.files[network.weights].sha256 for name, network in spec.networks.items()}
        return cls(name=spec.name, weights=weights)


class FrechetReference(FrozenModel):
    """What the Frechet distance is to.

    Attributes:
        name: what the distance is called: `FID` on Inception-v3 alone.
        source: the images, or the file of their statistics.
        images: how many; None where the file does not tell.
        extractor: whose features they are; None where the file does not tell.
    """

    name: str
    source: str
    images: int | None
    extractor: str | None


class HeldOut(FrozenModel):
    """Real images that the model has not seen, judged as if they were generated."""

    source: str
    figures: Figures


class Evaluation(FrozenModel):
    """Figures of a model, and of what.

    Attributes:
        model: its name and weights.
        plan: which images were generated and how, every default filled in.
        extractor: whose features the figures are of; figures of different extractors do not compare.
        frechet: what the Frechet distances are to.
        real: the real images that the other figures compare with; None: there are no other figures.
        generated: figures of the model.
        held_out: figures of unseen real images, None where there are none.
    """

    model: JudgedModel
    plan: SamplingPlan
    extractor: str
    frechet: FrechetReference
    real: RealFigures | None
    generated: Figures
    held_out: HeldOut | None

    def metrics(self) -> dict[str, float]:
        """Return the model's figures by name, e.g. `frechet_distance_efficientnet-lite0`, for its lineage."""
        figures = self.generated.model_dump(exclude_none=True)
        images = figures.pop("images")
        named = {f"{name}_{self.extractor}": value for name, value in figures.items()}
        return {f"images_{self.extractor}": float(images), **named}


def generated_batches(
    engine: Engine[R], plan: SamplingPlan, classes: int, progress: Progress
) -> Iterator[ImageBatch]:
    """Make a plan's images, in order, with the labels that were asked for.

    Args:
        engine: makes the images.
        plan: which.
        classes: of the model; 0: it is unconditional.
        progress: where to show how far it is.

    Raises:
        InvalidRequestError: the model cannot make one of the images.
    """
    images = generate(engine, plan.requests(classes), progress)
    labels = plan.labels(classes)
    start = 0
    while found := list(islice(images, BATCH)):
        yield np.stack(found), None if labels is None else labels[start : start + len(found)]
        start += len(found)


def evaluate(
    judge: Judge,
    batches: Iterable[ImageBatch],
    *,
    model: JudgedModel,
    plan: SamplingPlan,
    held_out: RealImages | None = None,
) -> Evaluation:
    """Judge a model's images beside real ones that it has not seen.

    Args:
        judge: knows the real images.
        batches: the images of `plan`: those of `generated_batches`, or the same read from a file.
        model: which model made them.
        plan: how, every default filled in (`SamplingPlan.resolved`).
        held_out: real images that the model has not seen.

    Raises:
        StatisticsError: there are too few images, or a feature is not finite.
        DataError: there are not as many images as planned.
    """
    generated = judge.figures_of(batches, total=plan.images)
    if generated.images != plan.images:
        raise DataError(f"{plan.images} images were planned, {generated.images} were given")
    statistics, extractor = judge.statistics, judge.extractor.name
    unseen = None
    if held_out is not None:
        figures = judge.figures_of(held_out.batches(), total=len(held_out))
        unseen = HeldOut(source=held_out.source, figures=figures)
    return Evaluation(
        model=model,
        plan=plan,
        extractor=extractor,
        frechet=FrechetReference(
            name=distance_name(extractor),
            source=statistics.source,
            images=statistics.images,
            extractor=statistics.extractor,
        ),
        real=judge.real,
        generated=generated,
        held_out=unseen,
    )


def keeping(batches: Iterable[ImageBatch], kept: list[Pixels], count: int) -> Iterator[ImageBatch]:
    """Pass batches through and put their first `count` images into `kept`."""
    for images, labels in batches:
        kept.extend(images[: count - len(kept)])
        yield images, labels
