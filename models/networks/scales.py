"""The token maps of VAR, from coarse to fine, and where each lies in the sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from models.errors import ModelError


@dataclass(frozen=True)
class Scales:
    """The scales of a VAR model: scale k is a square map of `sides[k]` x `sides[k]` tokens.

    The maps are concatenated, each in row-major order, into one sequence of `length` tokens
    (Tian et al. 2024, arXiv 2404.02905, Section 3.2).

    Attributes:
        sides: tokens along one side of each map; the published models call them `patch_nums`.
    """

    sides: tuple[int, ...]

    @classmethod
    def of(cls, patch_nums: Sequence[int]) -> Scales:
        """Return the scales of a constructor argument `patch_nums`, be it a tuple or a JSON list.

        Raises:
            ModelError: no scale, or a side below 1.
        """
        if not patch_nums or min(patch_nums) < 1:
            raise ModelError(
                f"patch_nums must hold at least one side, each at least 1, got {list(patch_nums)}"
            )
        return cls(tuple(patch_nums))

    def __len__(self) -> int:
        return len(self.sides)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of each scale."""
        return tuple(side * side for side in self.sides)

    @property
    def spans(self) -> tuple[slice, ...]:
        """Place of each scale in the sequence."""
        stops = tuple(accumulate(self.tokens))
        return tuple(slice(start, stop) for start, stop in zip((0, *stops), stops, strict=False))

    @property
    def length(self) -> int:
        """Tokens of all scales."""
        return sum(self.tokens)

    def ratio(self, scale: int) -> float:
        """Return how far `scale` lies between the first (0.0) and the last (1.0)."""
        return scale / max(len(self) - 1, 1)
