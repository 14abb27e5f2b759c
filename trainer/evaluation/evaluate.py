"""The figures of a trained model: generated images against training images and unseen real ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import Field
from rich.progress import Progress

from engines.base import Engine, ImageRequest
from models.frozen import FrozenModel
from trainer.data.emoji import HELD_OUT_STYLE, TRAINING_STYLES, EmojiImages
from trainer.evaluation.features import FeatureExtractor, Features, feature_batches
from trainer.evaluation.frechet import FeatureStatistics, frechet_distance
from trainer.evaluation.metrics import (
    Labels,
    centroid_accuracy,
    class_centroids,
    class_diversity,
    nearest_distances,
)
from trainer.sampling import R, generate


class SamplingPlan(FrozenModel):
    """Which images a model is judged by. None means: the model's default.

    Attributes:
        images: how many; the classes take turns, so they are balanced.
        seed: of the first image; each further one adds 1.
    """

    images: int = Field(default=10_000, ge=2)
    seed: int = 0
    steps: int | None = None
    solver: str | None = None
    cfg: float = 1.0

    def requests(self, classes: int) -> list[ImageRequest]:
        """Return the requests in order, for a model of so many classes."""
        return [
            ImageRequest(
                class_id=number % classes,
                seed=self.seed + number,
                steps=self.steps,
                solver=self.solver,
                cfg=self.cfg,
            )
            for number in range(self.images)
        ]


class Figures(FrozenModel):
    """Figures of one set of images; distances are Euclidean, in the extractor's feature space.

    Attributes:
        images: how many.
        frechet_distance: to the training images; only sets of equal size compare.
        centroid_accuracy: share of images whose nearest class centroid of the training images is
            their own class's.
        nearest_training_distance: median distance to the nearest training image.
        class_diversity: mean distance of two images of one class; None where no class has two.
    """

    images: int
    frechet_distance: float
    centroid_accuracy: float
    nearest_training_distance: float
    class_diversity: float | None


class Evaluation(FrozenModel):
    """What `evaluate` measures, and of what.

    Attributes:
        model: its name and the SHA-256 of its weights.
        extractor: whose features the figures are of; figures of different extractors do not compare.
        training_styles, held_out_style: the real images.
        training_images, training_class_diversity: of the images that the model learnt from.
        generated: figures of the model.
        held_out: figures of real images that the model has not seen.
    """

    model: str
    plan: SamplingPlan
    extractor: str
    training_styles: tuple[str, ...]
    held_out_style: str
    training_images: int
    training_class_diversity: float | None
    generated: Figures
    held_out: Figures


class Judge:
    """Knows the training images, and compares other images with them.

    Args:
        training: the images that the model learnt from; every class has at least one.
        extractor: gives the features.
        progress: where to show how far it is.

    Raises:
        StatisticsError: a class has no image.
    """

    def __init__(self, training: EmojiImages, extractor: FeatureExtractor, progress: Progress) -> None:
        self.extractor = extractor
        self._progress = progress
        self._features = self._extract(training.images)
        self._statistics = FeatureStatistics.of(self._features)
        self._centroids = class_centroids(self._features, training.labels, len(training.class_names))
        self.images = len(training.images)
        self.class_diversity = class_diversity(self._features, training.labels)

    def figures(self, images: npt.NDArray[np.uint8], labels: Labels) -> Figures:
        """Return the figures of (N, H, W, 3) images of the classes `labels`, (N,)."""
        features = self._extract(images)
        return Figures(
            images=len(images),
            frechet_distance=frechet_distance(self._statistics, FeatureStatistics.of(features)),
            centroid_accuracy=centroid_accuracy(features, labels, self._centroids),
            nearest_training_distance=float(np.median(nearest_distances(features, self._features))),
            class_diversity=class_diversity(features, labels),
        )

    def _extract(self, images: npt.NDArray[np.uint8]) -> Features:
        return np.concatenate(list(feature_batches(self.extractor, images, self._progress)))


def evaluate(
    engine: Engine[R],
    data: EmojiImages,
    plan: SamplingPlan,
    extractor: FeatureExtractor,
    *,
    model: str,
    progress: Progress,
) -> tuple[Evaluation, npt.NDArray[np.uint8]]:
    """Generate images and judge them by the training styles, beside the held-out style.

    Args:
        engine: makes the images.
        data: real images of the model's classes, all styles.
        plan: which images to generate.
        extractor: gives the features.
        model: its name and the SHA-256 of its weights, for the record.
        progress: where to show how far it is.

    Returns:
        The figures, and the generated images (N, H, W, 3) in the plan's order.

    Raises:
        DataError: `data` lacks one of the styles.
        StatisticsError: `data` lacks a class.
        InvalidRequestError: the model cannot make one of the images.
    """
    held_out = data.of_styles(HELD_OUT_STYLE)
    judge = Judge(data.of_styles(*TRAINING_STYLES), extractor, progress)
    requests = plan.requests(len(data.class_names))
    images = np.stack(list(generate(engine, requests, progress)))
    labels = np.arange(plan.images) % len(data.class_names)
    evaluation = Evaluation(
        model=model,
        plan=plan,
        extractor=extractor.name,
        training_styles=TRAINING_STYLES,
        held_out_style=HELD_OUT_STYLE,
        training_images=judge.images,
        training_class_diversity=judge.class_diversity,
        generated=judge.figures(images, labels),
        held_out=judge.figures(held_out.images, held_out.labels),
    )
    return evaluation, images
