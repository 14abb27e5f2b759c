"""Figures of labelled images in feature space, beside the Frechet distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.errors import StatisticsError
from trainer.evaluation.features import Features

Labels = npt.NDArray[np.integer]
"""(N,): the class of each image."""

_CHUNK = 1024


def class_centroids(features: Features, labels: Labels, classes: int) -> npt.NDArray[np.float64]:
    """Return the mean feature of each class, (classes, F).

    Raises:
        StatisticsError: a class has no image.
    """
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        raise StatisticsError(f"class {int(np.argmin(counts))} has no image, so it has no centroid")
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels, features)
    return sums / counts[:, None]


def centroid_accuracy(features: Features, labels: Labels, centroids: npt.NDArray[np.float64]) -> float:
    """Return the share of images whose nearest class centroid (Euclidean) is their own class's."""
    nearest = _distances(features, centroids).argmin(dim=1).numpy()
    return float((nearest == labels).mean())


def nearest_distances(features: Features, reference: Features) -> npt.NDArray[np.float64]:
    """Return each image's Euclidean distance to the nearest of `reference`, (N,).

    Compared with the same figure of unseen real images it tells memorisation: copies are nearer.
    """
    distances: npt.NDArray[np.float64] = _distances(features, reference).amin(dim=1).numpy()
    return distances


def class_diversity(features: Features, labels: Labels) -> float | None:
    """Return the mean Euclidean distance of two images of one class, averaged over the classes.

    Classes with a single image are left out; None where every class is.
    """
    members = (torch.from_numpy(features[labels == label]).double() for label in np.unique(labels))
    means = [torch.pdist(group).mean().item() for group in members if len(group) > 1]
    return float(np.mean(means)) if means else None


def _distances(features: npt.NDArray[np.floating], reference: npt.NDArray[np.floating]) -> Tensor:
    # Distances come from a matrix product, which in float32 would lose small ones.
    targets = torch.from_numpy(reference).double()
    chunks = [features[start : start + _CHUNK] for start in range(0, len(features), _CHUNK)]
    return torch.cat([torch.cdist(torch.from_numpy(chunk).double(), targets) for chunk in chunks])
