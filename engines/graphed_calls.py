"""A function of tensors as CUDA graphs, which spare the launching of its kernels one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from engines.cuda import Device


class GraphedCalls:
    """Runs a function as one graph for each set of shapes, captured at their first call.

    A call copies its inputs to where the graph reads them, replays it and copies the result out; calls must
    not overlap. Whatever else the function reads is read where it was at the capture.

    Args:
        function: reads and writes tensors of the device alone, and asks for none of their values.
        device: where.
    """

    def __init__(self, function: Callable[..., Tensor], device: Device) -> None:
        self._function = function
        self._device = device
        self._graphs: dict[tuple[torch.Size, ...], _Graph] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the function's result, in memory of its own."""
        shapes = tuple(given.shape for given in inputs)
        if shapes not in self._graphs:
            self._graphs[shapes] = self._capture(inputs)
        graph = self._graphs[shapes]
        for given, place in zip(inputs, graph.places, strict=True):
            place.copy_(given)
        graph.replay()
        return graph.results[-1].clone()

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Graph:
        # Of real values: the first run computes with them, and classes must be classes.
        places = [given.clone(memory_format=torch.contiguous_format) for given in inputs]
        results: list[Tensor] = []

        def work(stream: int) -> None:
            results[:] = [self._function(*places)]

        return _Graph(places, results, self._device.capture(work))


class _Graph(NamedTuple):
    """A captured call: where its inputs go, and the one result that it writes."""

    places: list[Tensor]
    results: list[Tensor]
    replay: Callable[[], None]
