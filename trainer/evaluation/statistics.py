"""Reference statistics: mean and covariance of real images' features, in a file."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np

from trainer.data.replacing import replacing
from trainer.errors import StatisticsError
from trainer.evaluation.frechet import Array, FeatureStatistics


@dataclass(frozen=True)
class ReferenceStatistics:
    """A normal distribution that Frechet distances are measured to, and what is known of it.

    Its .npz has the arrays that published reference files share: `mu` (F,) and the unbiased covariance
    `sigma` (F, F); beside them `extractor`, `images` and `source`, which files of others may lack.

    Attributes:
        mean: (F,) float64.
        covariance: (F, F) float64.
        extractor: name of the extractor; None where the file does not tell.
        images: how many it was computed from; None where the file does not tell.
        source: the images, or the file where it does not tell.
    """

    mean: Array
    covariance: Array
    extractor: str | None
    images: int | None
    source: str

    @classmethod
    def of(cls, statistics: FeatureStatistics, *, extractor: str, source: str) -> Self:
        """Return the reference of measured statistics; raises StatisticsError for fewer than two images."""
        return cls(statistics.mean, statistics.covariance, extractor, statistics.count, source)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an .npz.

        Raises:
            StatisticsError: it cannot be read, or holds no mean and covariance that belong together.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                mean, covariance = arrays["mu"].astype(np.float64), arrays["sigma"].astype(np.float64)
                extractor = str(arrays["extractor"]) if "extractor" in arrays else None
                images = int(arrays["images"]) if "images" in arrays else None
                source = str(arrays.get("source", path))
        except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise StatisticsError(
                f"{path} is not an .npz of statistics with the arrays mu and sigma: {error}"
            ) from error
        if mean.ndim != 1 or not mean.size or covariance.shape != (mean.size, mean.size):
            raise StatisticsError(
                f"{path}: mu must be (F,) and sigma (F, F), not {mean.shape} and {covariance.shape}"
            )
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise StatisticsError(f"{path} holds NaN or infinite values")
        if np.abs(covariance - covariance.T).max() > 1e-4 * np.abs(covariance).max():
            raise StatisticsError(f"{path}: sigma is not symmetric, so it is no covariance")
        return cls(mean, covariance, extractor, images, source)

    def save(self, path: Path) -> None:
        """Write an .npz, whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        arrays: dict[str, Any] = {"mu": self.mean, "sigma": self.covariance, "source": self.source}
        if self.extractor is not None:
            arrays["extractor"] = self.extractor
        if self.images is not None:
            arrays["images"] = self.images
        with replacing(path) as file:
            np.savez(file, **arrays)
