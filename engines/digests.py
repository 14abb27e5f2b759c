"""Fingerprints of everything that a row passes through, to compare runs bit by bit."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_SPREAD = 0x1E3779B97F4A7C15
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class RowDigests:
    """Within a `with` block, digests the output of every module inside `root`, row by row.

    The end of a network hides most of what happened before it: a sum that was taken in another order differs
    in the last bits of float32, and these seldom survive the rounding to bfloat16. But sometimes they do, and
    then the image differs. So all outputs on the way are compared, not the last alone.

    Args:
        root: the program; its modules are watched while the block runs.
        rows: batch size. An output may hold several such batches one behind the other; outputs of other
            leading sizes are left out.
    """

    def __init__(self, root: nn.Module, rows: int) -> None:
        self._root = root
        self._rows = rows
        self._handles: list[RemovableHandle] = []
        self._digests: list[Tensor] = []

    def __enter__(self) -> RowDigests:
        self._handles = [module.register_forward_hook(self._watch) for module in self._root.modules()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def with_result(self, result: Tensor) -> Tensor:
        """Return (rows, outputs + 1) int64: the digests so far and that of `result`."""
        return torch.stack([*self._digests, digest(result)], dim=1)

    def _watch(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim and len(output) % self._rows == 0:
            self._digests.append(digest(output.reshape(-1, self._rows, *output.shape[1:]).transpose(0, 1)))


def digest(values: Tensor) -> Tensor:
    """Return an int64 for each row of `values`, equal where all of the row's bits are.

    It is a sum of the values' words, each with a weight of its place's own, modulo 2^64.
    """
    flat = values.contiguous().reshape(len(values), -1)
    words = flat.view(_WORDS[flat.element_size()]).to(torch.int64)
    weights = torch.arange(1, 2 * words.shape[1], 2, device=words.device) * _SPREAD
    return (words * weights).sum(dim=1)
