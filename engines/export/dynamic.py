"""Programs as torch.export sees them: which sizes are dynamic, and an example."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.programs.program import Program


class Positional(nn.Module):
    """A module whose inputs the exporter sees as one list, whatever the signature of its `forward`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:  # noqa: D102
        result: Tensor | tuple[Tensor, ...] = self.module(*inputs)
        return result


def example(program: Program) -> tuple[Tensor, ...]:
    """Draw inputs to trace the program with, on the CPU: small, and of no two equal dynamic sizes."""
    # Equal sizes could be taken for one dimension.
    return program.example({name: 2 + i for i, name in enumerate(sorted(program.dimensions))})


def dynamic_shapes(program: Program) -> tuple[tuple[dict[int, object], ...]]:
    """Return what torch.export is told of the inputs of `Positional`."""
    shapes = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(port.shape) if isinstance(size, str)}
        for port in program.inputs
    )
    return (shapes,)


@torch.no_grad()
def exported(program: Program, device: torch.device) -> torch.export.ExportedProgram:
    """Export a program whose module is on `device`."""
    inputs = tuple(given.to(device) for given in example(program))
    module = Positional(program.module).eval()
    return torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes(program))
