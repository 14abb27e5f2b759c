"""A linear layer for inference on a CPU, its weights as oneDNN wants them."""

from __future__ import annotations

from typing import Self, cast

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer in bfloat16, with its activation if it has one, in one call of oneDNN.

    PyTorch's own hands oneDNN the weights in their usual layout, where a product of few rows takes up to
    twice as long. Its weights are no parameters, and are not in the state dict.

    Args:
        weight, bias: (out, in) and (out,), bfloat16, on the CPU.
        gelu: apply the tanh-approximated GELU to the result.
    """

    @staticmethod
    def works_for(dtype: torch.dtype, device: torch.device) -> bool:
        """Tell whether such weights can be packed."""
        onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        return onednn and device.type == "cpu" and dtype == torch.bfloat16

    @classmethod
    def of(cls, layer: nn.Module, *, gelu: bool = False) -> Self:
        """Pack a linear layer that has a bias."""
        linear = cast(nn.Linear, layer)
        return cls(linear.weight, linear.bias, gelu=gelu)

    def __init__(self, weight: Tensor, bias: Tensor, *, gelu: bool = False) -> None:
        super().__init__()
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self._bias = bias.detach()
        self._activation = ("gelu", "tanh") if gelu else ("none", "")

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        name, algorithm = self._activation
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, name, [], algorithm)
        return product
