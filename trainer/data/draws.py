"""Random numbers that belong to a row of training, whichever process draws them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


class Draws:
    """One stream of independent numbers a row, from a counter-based generator (Salmon et al. 2011, Philox).

    Args:
        seed: of the run.
        stream: tells apart what is drawn for one row: its noise, its noise level, its label drop.
    """

    def __init__(self, seed: int, stream: int) -> None:
        self._key = (seed, stream)

    def normal(self, rows: range, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw (len(rows), *shape) float32 standard normal numbers."""
        size = math.prod(shape)
        drawn = [self._generator(row).standard_normal(size, dtype=np.float32) for row in rows]
        return torch.from_numpy(np.stack(drawn)).reshape(len(rows), *shape)

    def uniform(self, rows: range) -> Tensor:
        """Draw (len(rows),) float32 numbers, uniform in [0, 1)."""
        return torch.tensor([self._generator(row).random(dtype=np.float32) for row in rows])

    def _generator(self, row: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self._key, counter=(0, 0, 0, row)))
