"""Keys and values of the scales decoded so far, for all rows that are open."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.errors import EngineError


class KeyValueCache:
    """One preallocated block of memory, divided into slots; a slot holds one sequence.

    The lowest free slot is given out first, so that on a CPU, where memory that was never written costs
    nothing, the cache is as large as its busiest moment was.

    Args:
        depth: layers of the transformer.
        slots: sequences held at once.
        heads: attention heads.
        length: tokens of a whole sequence.
        head_dim: width of a head.
        dtype, device: of the keys and values.
    """

    def __init__(
        self,
        *,
        depth: int,
        slots: int,
        heads: int,
        length: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._data = torch.empty(depth, 2, slots, heads, length, head_dim, dtype=dtype, device=device)
        self._free = list(range(slots))

    @property
    def nbytes(self) -> int:
        """Bytes of all slots."""
        return self._data.nbytes

    def acquire(self) -> int:
        """Take a slot.

        Raises:
            EngineError: none is free.
        """
        if not self._free:
            raise EngineError("every slot of the key and value cache is taken; close a row first")
        return heapq.heappop(self._free)

    def release(self, slot: int) -> None:
        """Give a slot back; its content may be overwritten from now on."""
        heapq.heappush(self._free, slot)

    def at(self, slots: list[int], span: slice) -> CacheView:
        """Return the cache as a batch sees it that writes the tokens of `span` into `slots`."""
        run = range(slots[0], slots[0] + len(slots))
        rows = (
            slice(run.start, run.stop)
            if slots == list(run)
            else torch.tensor(slots, device=self._data.device)
        )
        return CacheView(self._data, rows, span)


@dataclass(frozen=True)
class CacheView:
    """The slots of one batch while it decodes one scale: a `models.networks.var.KeyValueStore`.

    Attributes:
        data: (depth, 2, slots, heads, length, head_dim).
        rows: the batch's slots: a slice where they lie side by side, as those of one image and of images
            that began together do; else (B,), int64, and reading copies. A slot may occur twice if its rows
            are alike.
        span: places of the scale's tokens in the sequence.
    """

    data: Tensor
    rows: Tensor | slice
    span: slice

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep new keys and values (B, heads, tokens, head_dim); return all of the sequence so far."""
        for part, new in zip(self.data[layer], (keys, values), strict=True):
            part[self.rows, :, self.span] = new
        if self.span.start == 0:
            return keys, values
        seen = self.data[layer, :, :, :, : self.span.stop]
        return seen[0][self.rows], seen[1][self.rows]

    def past(self) -> Tensor:
        """Return all layers' keys and values before the scale, (depth, 2, B, heads, tokens, head_dim)."""
        return self.data[:, :, self.rows, :, : self.span.start].contiguous()

    def write(self, new: Tensor) -> None:
        """Keep the scale's own, (depth, 2, B, heads, tokens, head_dim)."""
        self.data[:, :, self.rows, :, self.span] = new
