"""From 8-bit pixels to what a network sees."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.errors import DataError

Pixels = npt.NDArray[np.uint8]
"""(N, H, W, 3) or (H, W, 3), RGB."""


def to_network(pixels: Pixels, fold: int) -> Tensor:
    """Map (B, H, W, 3) uint8 to (B, 3 fold^2, H / fold, W / fold) float32 in [-1, 1]."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.pixel_unshuffle(images, fold).contiguous()


def network_shape(height: int, width: int, fold: int) -> tuple[int, int, int]:
    """Return the shape (C, H, W) that `to_network` gives to one image.

    Raises:
        DataError: the sides are no multiples of `fold`.
    """
    if height % fold or width % fold:
        raise DataError(
            f"images of {width} x {height} pixels cannot be folded by {fold}; choose another fold"
        )
    return 3 * fold**2, height // fold, width // fold
