"""The Frechet distance between two sets of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from trainer.errors import StatisticsError

Array = npt.NDArray[np.float64]


class Gaussian(Protocol):
    """A normal distribution: `mean` (F,) and `covariance` (F, F), float64."""

    @property
    def mean(self) -> Array: ...  # noqa: D102

    @property
    def covariance(self) -> Array: ...  # noqa: D102


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and covariance of a set of features, in float64.

    Attributes:
        mean: (F,).
        scatter: (F, F), the sum of the outer products of the deviations from the mean.
        count: number of images.
    """

    mean: Array
    scatter: Array
    count: int

    @classmethod
    def of(cls, features: npt.NDArray[np.floating]) -> Self:
        """Return the statistics of (N, F) features; raises StatisticsError if any is not finite."""
        if features.ndim != 2 or not features.size:
            raise StatisticsError(f"features must be (N, F) and not empty, not {features.shape}")
        if not np.isfinite(features).all():
            raise StatisticsError("the features hold NaN or infinite values")
        exact = features.astype(np.float64)
        mean = exact.mean(axis=0)
        deviations = exact - mean
        return cls(mean, deviations.T @ deviations, len(exact))

    def merge(self, other: Self) -> Self:
        """Return the statistics of both sets together (Chan, Golub & LeVeque 1983).

        The result is that of `of` on all features at once, up to the rounding of float64.

        Raises:
            StatisticsError: the features differ in number.
        """
        _check_same_features(self, other)
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        between = np.outer(shift, shift) * (self.count * other.count / count)
        return type(self)(mean, self.scatter + other.scatter + between, count)

    @property
    def covariance(self) -> Array:
        """The unbiased covariance, (F, F); raises StatisticsError for fewer than two images."""
        if self.count < 2:
            raise StatisticsError(f"a covariance needs at least 2 images, there are {self.count}")
        return self.scatter / (self.count - 1)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return the squared 2-Wasserstein distance of the two normal distributions (Dowson & Landau 1982).

    d = |mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a^1/2 S_b S_a^1/2)^1/2)

    The symmetric form needs eigenvalues of symmetric matrices only, so singular covariances are no
    problem. With N images the expectation exceeds the true distance by about a constant / N: compare
    distances of equal counts only, and take more images than there are features where the value itself
    matters.

    Raises:
        StatisticsError: a set has fewer than two images, or the features differ in number.
    """
    _check_same_features(a, b)
    first, second = a.covariance, b.covariance
    root = _square_root(first)
    overlap = np.linalg.eigvalsh(root @ second @ root)
    shift = a.mean - b.mean
    distance = shift @ shift + np.trace(first) + np.trace(second) - 2 * np.sqrt(overlap.clip(min=0)).sum()
    return max(float(distance), 0.0)


def _square_root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    root: Array = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def _check_same_features(a: Gaussian, b: Gaussian) -> None:
    if a.mean.shape != b.mean.shape:
        raise StatisticsError(f"{a.mean.size} features cannot be compared with {b.mean.size}")
