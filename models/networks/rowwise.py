"""Linear layers whose rows do not notice each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def rowwise_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map (B, in) to (B, out) as B products of one row each.

    A single product of all rows sums in another order for few rows than for many, which changes a row's last
    bits with the batch size. Conditioning is small, so that doing without costs next to nothing. A compiler
    that traces this gets the single product: it chooses the order of its sums itself.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return F.linear(x, weight, bias)
    products = torch.bmm(x[:, None], weight.t().expand(x.shape[0], -1, -1))[:, 0]
    return products if bias is None else products + bias


def float32_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Map (..., in) to (..., out) as a linear layer does; in inference mode, on a CPU, by oneDNN.

    PyTorch gives float32 products to MKL, which sums 9 rows in another order than 18, and on AMD takes
    more than twice as long.
    """
    if (
        not torch.is_inference_mode_enabled()
        or x.device.type != "cpu"
        or not x.dtype == weight.dtype == torch.float32
        or not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    ):
        return F.linear(x, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
