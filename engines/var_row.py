"""One image that the VAR engine is making."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.base import ImageRequest
from engines.scale_decoder import Branch
from engines.token_sampling import TokenSampler

PIXELS = "pixels"


def lane_of(scale: int) -> str:
    """Return the kind of the calls that decode a scale."""
    return f"scale{scale}"


@dataclass(eq=False, kw_only=True)
class VarRow:
    """A `Row`: as many calls as there are scales, then one of the decoder.

    Attributes:
        request: what is made, every default filled in.
        scales: number of scales.
        branches: the class's sequence, and behind it the one without a class if the row is guided.
        guidance: guidance weight t at the last scale; 0 is none.
        sampler: draws the row's tokens with its own noise.
        features: sum of the scales decoded so far, (1, z_channels, H, W), float32.
        drawn: ids of each scale decoded so far, (tokens,), int64.
        pixels: the finished image, (H, W, 3).
    """

    request: ImageRequest
    scales: int
    branches: tuple[Branch, ...]
    guidance: float
    sampler: TokenSampler
    features: Tensor
    drawn: list[Tensor] = field(default_factory=list)
    pixels: npt.NDArray[np.uint8] | None = None

    @property
    def scale(self) -> int:
        """The scale to decode next; the number of scales when all are."""
        return len(self.drawn)

    @property
    def tokens(self) -> Tensor:
        """Ids of all scales decoded so far, concatenated, int64."""
        return torch.cat(self.drawn)

    @property
    def lane(self) -> str:
        """Which scale is next, or the decoder."""
        return lane_of(self.scale) if self.scale < self.scales else PIXELS

    @property
    def calls_left(self) -> int:
        """Engine calls until the image is there."""
        return self.scales - self.scale + (self.pixels is None)
