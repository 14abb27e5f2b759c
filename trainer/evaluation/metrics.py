"""Figures of labelled images in feature space, beside the Frechet distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from trainer.errors import StatisticsError
from trainer.evaluation.distances import distance_chunks
from trainer.evaluation.features import Features, Labels


@dataclass(frozen=True)
class ClassSums:
    """Sums of features, class by class.

    Attributes:
        sums: (classes, F) float64.
        counts: (classes,).
    """

    sums: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, features: Features, labels: Labels, classes: int) -> Self:
        """Return the sums of (N, F) features of the classes `labels`, (N,)."""
        sums = np.zeros((classes, features.shape[1]))
        np.add.at(sums, labels, features)
        return cls(sums, np.bincount(labels, minlength=classes))

    def merge(self, other: Self) -> Self:
        """Return the sums of both sets together."""
        return type(self)(self.sums + other.sums, self.counts + other.counts)

    @property
    def centroids(self) -> npt.NDArray[np.float64]:
        """The mean feature of each class, (classes, F); raises StatisticsError if a class has no image."""
        if not self.counts.all():
            raise StatisticsError(f"class {int(np.argmin(self.counts))} has no image, so it has no centroid")
        return self.sums / self.counts[:, None]


def centroid_accuracy(features: Features, labels: Labels, centroids: npt.NDArray[np.float64]) -> float:
    """Return the share of images whose nearest class centroid (Euclidean) is their own class's."""
    nearest = torch.cat([chunk.argmin(dim=1) for chunk in distance_chunks(features, centroids)])
    return float((nearest.numpy() == labels).mean())


def nearest_distances(features: Features, reference: Features) -> npt.NDArray[np.float64]:
    """Return each image's Euclidean distance to the nearest of `reference`, (N,).

    Compared with the same figure of unseen real images it tells memorisation: copies are nearer.
    """
    chunks = [chunk.amin(dim=1) for chunk in distance_chunks(features, reference)]
    distances: npt.NDArray[np.float64] = torch.cat(chunks).numpy()
    return distances


def class_diversity(features: Features, labels: Labels) -> float | None:
    """Return the mean Euclidean distance of two images of one class, averaged over the classes.

    Classes with a single image are left out; None where every class is.
    """
    groups = (features[labels == label] for label in np.unique(labels))
    means = [
        sum(chunk.sum().item() for chunk in distance_chunks(group, group)) / (len(group) * (len(group) - 1))
        for group in groups
        if len(group) > 1
    ]
    return float(np.mean(means)) if means else None
