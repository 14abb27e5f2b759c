"""What a backend needs to know to compile a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

OPSET = 21
"""The oldest ONNX version in which a group normalisation stays one."""

Draw = Callable[[tuple[int, ...], torch.Generator], Tensor]


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=generator)


def log_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw positive numbers, as noise levels are."""
    return torch.randn(shape, generator=generator).exp()


def integers(below: int) -> Draw:
    """Return what draws integers from 0 to `below` - 1."""

    def draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(below, shape, generator=generator)

    return draw


@dataclass(frozen=True)
class Port:
    """A named input or output.

    Attributes:
        name: unique in its program.
        shape: sizes; a dynamic one is the name of its dimension.
        dtype: of the tensor.
        draw: makes an input that means something to the module.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: torch.dtype = torch.float32
    draw: Draw = normal


@dataclass(frozen=True)
class Range:
    """The sizes that a dynamic dimension may have, and the one to be fastest at."""

    least: int
    usual: int
    most: int


Profile = Mapping[str, Range]
"""The range of every dynamic dimension; a program may be compiled for several."""


@dataclass(frozen=True)
class Program:
    """A module with everything that it takes to export, compile, feed and check it.

    Attributes:
        name: what it computes, unique among the programs of a model.
        module: its `forward` takes `inputs` in order and returns `outputs` in order; it reads nothing else.
        inputs, outputs: its tensors.
        profiles: at least one.
        opset: the oldest ONNX version that can say what the module computes.
    """

    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    profiles: tuple[Profile, ...]
    opset: int = OPSET

    @property
    def dimensions(self) -> frozenset[str]:
        """Names of the dynamic dimensions."""
        return frozenset(size for port in self.inputs for size in port.shape if isinstance(size, str))

    def example(self, sizes: Mapping[str, int], seed: int = 0) -> tuple[Tensor, ...]:
        """Draw inputs; `sizes` has the size of every dynamic dimension."""
        generator = torch.Generator().manual_seed(seed)
        drawn = []
        for port in self.inputs:
            shape = tuple(sizes[size] if isinstance(size, str) else size for size in port.shape)
            drawn.append(port.draw(shape, generator).to(port.dtype))
        return tuple(drawn)
