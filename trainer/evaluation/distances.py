"""Euclidean distances between many features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_ROWS = 512


def distance_chunks(
    features: npt.NDArray[np.floating], reference: npt.NDArray[np.floating]
) -> Iterator[Tensor]:
    """Yield the distances of `features` (N, F) to `reference` (M, F), (<= 512, M) float64, rows in order.

    Float64, although features are float32: |a - b|^2 comes from a matrix product, |a|^2 + |b|^2 - 2 ab, whose
    rounding is relative to |a|^2. In float32 that hides distances below about 1e-3 |a|, those of copies and
    near copies; in float64 the limit is 1e-8 |a|.
    """
    # Both sides in pieces: float64 copies of whole sets would be the largest arrays of an evaluation.
    for rows in _pieces(features):
        yield torch.cat([torch.cdist(rows, targets) for targets in _pieces(reference)], dim=1)


def _pieces(features: npt.NDArray[np.floating]) -> Iterator[Tensor]:
    for start in range(0, len(features), _ROWS):
        yield torch.from_numpy(features[start : start + _ROWS]).double()
