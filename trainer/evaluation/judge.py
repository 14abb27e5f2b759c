"""Knows real images, and compares other images with them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from engines.pixels import Pixels
from models.frozen import FrozenModel
from trainer.errors import StatisticsError
from trainer.evaluation.feature_set import FeatureSet
from trainer.evaluation.features import FeatureExtractor, ImageBatch, Labels, feature_chunks, split
from trainer.evaluation.frechet import frechet_distance
from trainer.evaluation.images import RealImages
from trainer.evaluation.metrics import centroid_accuracy, nearest_distances
from trainer.evaluation.precision_recall import Manifold
from trainer.evaluation.statistics import ReferenceStatistics


class Figures(FrozenModel):
    """Figures of one set of images; distances are Euclidean, in the extractor's feature space.

    None: the figure needs real images, their features or labels, and there were none.

    Attributes:
        images: how many.
        frechet_distance: to the reference statistics; only sets of equal size compare.
        centroid_accuracy: share of images whose nearest class centroid of the real images is their own
            class's.
        nearest_real_distance: median distance to the nearest real image.
        class_diversity: mean distance of two images of one class; None too where no class has two.
        precision: share of images inside the real images' manifold (3 nearest neighbours).
        recall: share of real images inside the manifold of the images.
    """

    images: int
    frechet_distance: float
    centroid_accuracy: float | None = None
    nearest_real_distance: float | None = None
    class_diversity: float | None = None
    precision: float | None = None
    recall: float | None = None


class RealFigures(FrozenModel):
    """Figures of the real images themselves.

    Attributes:
        source: where they come from.
        images: how many.
        class_diversity: mean distance of two images of one class; None where their features are not kept.
    """

    source: str
    images: int
    class_diversity: float | None


class Judge:
    """Knows real images, and compares other images with them.

    Args:
        extractor: gives the features.
        progress: where to show how far it is.
        real: the real images; every class has at least one. None: only `statistics` are known, and the
            Frechet distance is the only figure.
        statistics: what the Frechet distance is to; None: `real`.
        neighbours: keep the features of all real images, 4 F bytes each, for the figures that compare
            image with image: nearest real image, precision and recall. Their time grows with the product
            of the two counts.

    Attributes:
        real: what is known of the real images, None where only statistics were given.
        statistics: what the Frechet distance is to.

    Raises:
        StatisticsError: there are neither real images nor statistics, the statistics are of another
            extractor, or a class has no image.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        progress: Progress,
        *,
        real: RealImages | None = None,
        statistics: ReferenceStatistics | None = None,
        neighbours: bool = True,
    ) -> None:
        self.extractor = extractor
        self._progress = progress
        if statistics is not None:
            self._check(statistics)
        self._centroids: npt.NDArray[np.float64] | None = None
        self._manifold: Manifold | None = None
        self.real: RealFigures | None = None
        if real is not None:
            known = self._gather(real.batches(), len(real), classes=real.classes, keep=neighbours)
            self._centroids = None if known.sums is None else known.sums.centroids
            self._manifold = None if known.features is None else Manifold.of(known.features)
            self.real = RealFigures(
                source=real.source,
                images=known.statistics.count,
                class_diversity=known.class_diversity,
            )
            measured = ReferenceStatistics.of(known.statistics, extractor=extractor.name, source=real.source)
            statistics = statistics or measured
        if statistics is None:
            raise StatisticsError("there is nothing to compare with: give real images or their statistics")
        self.statistics = statistics

    def figures(self, images: Pixels, labels: Labels | None) -> Figures:
        """Return the figures of (N, H, W, 3) images of the classes `labels`, (N,), if they have any."""
        return self.figures_of(split(images, labels), total=len(images))

    def figures_of(self, batches: Iterable[ImageBatch], total: int | None = None) -> Figures:
        """Return the figures of a stream of images; none of them is kept.

        Args:
            batches: images with their labels, as many at once as the extractor is to get at once.
            total: their number, where it is known.

        Raises:
            StatisticsError: there are too few images, or a feature is not finite.
        """
        found = self._gather(batches, total, keep=self.real is not None)
        accuracy = nearest = precision = recall = None
        if found.features is not None and found.labels is not None and self._centroids is not None:
            accuracy = centroid_accuracy(found.features, found.labels, self._centroids)
        if found.features is not None and self._manifold is not None:
            task = self._progress.add_task("neighbours", total=3)
            nearest = float(np.median(nearest_distances(found.features, self._manifold.features)))
            self._progress.advance(task)
            precision = float(self._manifold.holds(found.features).mean())
            self._progress.advance(task)
            recall = float(Manifold.of(found.features).holds(self._manifold.features).mean())
            self._progress.advance(task)
        return Figures(
            images=found.statistics.count,
            frechet_distance=frechet_distance(self.statistics, found.statistics),
            centroid_accuracy=accuracy,
            nearest_real_distance=nearest,
            class_diversity=found.class_diversity,
            precision=precision,
            recall=recall,
        )

    def _gather(
        self, batches: Iterable[ImageBatch], total: int | None, *, classes: int = 0, keep: bool
    ) -> FeatureSet:
        chunks = feature_chunks(self.extractor, batches, self._progress, total)
        return FeatureSet.gather(chunks, classes=classes, keep=keep)

    def _check(self, statistics: ReferenceStatistics) -> None:
        name = self.extractor.name
        if statistics.extractor not in (None, name):
            raise StatisticsError(f"the reference statistics are of {statistics.extractor}, not of {name}")
        # Files of others do not tell their extractor; a wrong one is better found before images are made.
        width = self.extractor(np.zeros((1, 32, 32, 3), np.uint8)).shape[1]
        if statistics.mean.size != width:
            raise StatisticsError(
                f"the reference statistics are of {statistics.mean.size} features, {name} has {width}"
            )
