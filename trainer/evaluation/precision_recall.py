"""Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.errors import StatisticsError
from trainer.evaluation.distances import distance_chunks
from trainer.evaluation.features import Features

NEIGHBOURS = 3
"""The paper's k."""


@dataclass(frozen=True)
class Manifold:
    """The space that a set of images fills: around each a ball up to its k-th nearest neighbour (Eq. 1).

    Precision is the share of generated images inside the real images' manifold, recall the share of real
    images inside the generated images' (Eq. 2). Both depend on the counts: compare equal ones only.

    Attributes:
        features: (N, F), the centres.
        radii: (N,) float64.
    """

    features: Features
    radii: Tensor

    @classmethod
    def of(cls, features: Features, neighbours: int = NEIGHBOURS) -> Self:
        """Return the manifold of (N, F) features.

        Raises:
            StatisticsError: there are not more than `neighbours`.
        """
        if len(features) <= neighbours:
            raise StatisticsError(
                f"{neighbours} neighbours need more than {neighbours} images, there are {len(features)}"
            )
        # The nearest of all is the image itself.
        radii = [chunk.kthvalue(neighbours + 1).values for chunk in distance_chunks(features, features)]
        return cls(features, torch.cat(radii))

    def holds(self, features: Features) -> npt.NDArray[np.bool_]:
        """Tell which of (M, F) features lie inside, (M,)."""
        chunks = [(chunk <= self.radii).any(dim=1) for chunk in distance_chunks(features, self.features)]
        inside: npt.NDArray[np.bool_] = torch.cat(chunks).numpy()
        return inside
