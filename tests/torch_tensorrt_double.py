"""A stand-in for `torch_tensorrt`: it runs what it is given, and refuses what the documentation rules out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Input:
    """As `torch_tensorrt.Input`: a range of shapes."""

    min_shape: tuple[int, ...]
    opt_shape: tuple[int, ...]
    max_shape: tuple[int, ...]
    dtype: torch.dtype
    name: str


@dataclass
class TorchTensorRTDouble:
    """As the package.

    Attributes:
        compiled: the inputs of each program compiled.
        reason: why it refuses to compile; None: it does not.
    """

    reason: str | None = None
    compiled: list[list[Input]] = field(default_factory=list)
    Input = Input

    @property
    def dynamo(self) -> SimpleNamespace:
        return SimpleNamespace(compile=self._compile)

    def _compile(
        self,
        exported_program: torch.export.ExportedProgram,
        inputs: Sequence[Input],
        *,
        device: torch.device,
        use_explicit_typing: bool = True,
    ) -> Callable[..., Any]:
        assert isinstance(exported_program, torch.export.ExportedProgram) and use_explicit_typing
        if self.reason is not None:
            raise RuntimeError(self.reason)
        self.compiled.append(list(inputs))
        module = exported_program.module()

        def run(*given: Tensor) -> Any:
            for tensor, spec in zip(given, inputs, strict=True):
                assert tensor.dtype == spec.dtype and tensor.device == device, spec.name
                sizes = zip(spec.min_shape, tensor.shape, spec.max_shape, strict=True)
                assert all(low <= size <= high for low, size, high in sizes), spec.name
            return module(*given)

        return run
