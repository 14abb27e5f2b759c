"""VAR's transformer launched as CUDA graphs, one for each scale and number of sequences."""

from __future__ import annotations

import dataclasses
from functools import partial

import torch
from torch import Tensor, nn

from engines.cuda import Device
from engines.graphed_calls import GraphedCalls
from engines.kv_cache import CacheView
from engines.scale_decoder import ScaleDecoder
from models.networks.var import VAR, Modulation


class GraphedScaleDecoder(ScaleDecoder):
    """A `ScaleDecoder` whose layers and head are captured; keys and values stay where they are.

    At the first scales the kernels are so short that launching them takes longer than running them.

    Args:
        var: the network, on a GPU, in the precision that it computes in; it is taken over.
        slots: branches open at once.
        max_branches: branches in one call.
        graphs: captures them.
    """

    _probed_layers = None  # a graph runs them all

    def __init__(self, var: VAR, *, slots: int, max_branches: int, graphs: Device) -> None:
        self._graphs = graphs
        self._calls: dict[int, GraphedCalls] = {}
        super().__init__(var, slots=slots, max_branches=max_branches)

    @property
    def _watched(self) -> nn.Module:
        return nn.Identity()  # modules run at a capture alone: only results can be compared

    def _logits(self, x: Tensor, modulation: Modulation, cache: CacheView) -> Tensor:
        rows = cache.rows
        if isinstance(rows, slice):
            rows = torch.arange(rows.start, rows.stop, device=x.device)
        start = cache.span.start
        if start not in self._calls:
            self._calls[start] = GraphedCalls(partial(self._compute, cache), self._graphs)
        return self._calls[start](x, modulation.blocks, modulation.head, rows)

    def _compute(self, cache: CacheView, x: Tensor, blocks: Tensor, head: Tensor, rows: Tensor) -> Tensor:
        own = dataclasses.replace(cache, rows=rows)
        return self._var.logits(x, Modulation(blocks, head), cache=own).float()
