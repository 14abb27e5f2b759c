"""What one pass over a set of images leaves in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from trainer.errors import StatisticsError
from trainer.evaluation.features import Features, Labels
from trainer.evaluation.frechet import FeatureStatistics
from trainer.evaluation.metrics import ClassSums, class_diversity


@dataclass(frozen=True)
class FeatureSet:
    """A set of images in feature space; the images themselves are not kept.

    Attributes:
        statistics: mean and covariance.
        labels: (N,), None where the images have none.
        sums: of each class; None where they were not asked for.
        features: (N, F); None where they were not asked for.
    """

    statistics: FeatureStatistics
    labels: Labels | None
    sums: ClassSums | None
    features: Features | None

    @property
    def class_diversity(self) -> float | None:
        """Mean distance of two images of one class; None without features, labels or such a class."""
        if self.features is None or self.labels is None:
            return None
        return class_diversity(self.features, self.labels)

    @classmethod
    def gather(
        cls, chunks: Iterable[tuple[Features, Labels | None]], *, classes: int = 0, keep: bool = False
    ) -> Self:
        """Take in features chunk by chunk.

        Args:
            chunks: features (<= N, F) and their labels.
            classes: number of classes to sum up, 0: none.
            keep: keep the features, 4 F bytes an image.

        Raises:
            StatisticsError: there are no features, or one is not finite.
        """
        statistics: FeatureStatistics | None = None
        sums: ClassSums | None = None
        kept: list[Features] = []
        seen: list[Labels] = []
        for features, labels in chunks:
            part = FeatureStatistics.of(features)
            statistics = part if statistics is None else statistics.merge(part)
            if keep:
                kept.append(features)
            if labels is not None:
                seen.append(labels)
                if classes:
                    own = ClassSums.of(features, labels, classes)
                    sums = own if sums is None else sums.merge(own)
        if statistics is None:
            raise StatisticsError("there are no images")
        return cls(
            statistics,
            np.concatenate(seen) if seen else None,
            sums,
            np.concatenate(kept) if kept else None,
        )
