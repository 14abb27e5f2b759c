"""One image that the diffusion engine is making."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engines.base import ImageRequest
from engines.pixels import Pixels
from engines.solvers import SolverTable

DECODE = "decode"


def lane_of(request: ImageRequest) -> str:
    """Return the kind of a request's calls of the denoiser."""
    return "plain" if request.cfg == 1.0 else "guided"


@dataclass(eq=False, kw_only=True)
class DiffusionRow:
    """A `Row`: as many calls as the solver's table has, then one of the decoder, if there is one.

    Attributes:
        request: what is made, every default filled in.
        table: the solver written out.
        state: (K, C, H, W) float32 on the engine's device, K the engine's slots.
        generator: the row's own noise, on the CPU.
        decoded: whether the decoder's call belongs to it.
        call: the table's call to make next.
        pixels: the finished image, (H, W, 3).
    """

    request: ImageRequest
    table: SolverTable
    state: Tensor
    generator: torch.Generator
    decoded: bool = True
    call: int = 0
    pixels: Pixels | None = None

    @property
    def lane(self) -> str:
        """Guided rows, unguided rows and finished samples each have calls of their own."""
        if self.call == len(self.table.calls):
            return DECODE
        return lane_of(self.request)

    @property
    def calls_left(self) -> int:
        """Engine calls until the image is there, or the sample where nothing decodes it."""
        return len(self.table.calls) - self.call + (self.decoded and self.pixels is None)
