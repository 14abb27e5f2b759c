"""Magnitude-preserving layers of EDM2 (Karras et al. 2024, arXiv 2312.02696, whose equations are cited)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.rowwise import rowwise_linear

_SILU_MAGNITUDE = 0.596  # E[silu(n)^2]^(1/2) for a standard normal n


def normalize(x: Tensor, dim: int | Sequence[int] | None = None, eps: float = 1e-4) -> Tensor:
    """Scale vectors along `dim` (default: all but the first) to the norm of unit-variance entries."""
    dims = list(range(1, x.ndim)) if dim is None else [dim] if isinstance(dim, int) else dim
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float32)
    norm = eps + norm * math.sqrt(1 / math.prod([x.shape[each] for each in dims]))
    unit: Tensor = x / norm.to(x.dtype)
    return unit


def mp_silu(x: Tensor) -> Tensor:
    """SiLU of unit output magnitude (Eq. 81)."""
    return F.silu(x) / _SILU_MAGNITUDE


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Blend of `a` and `b` with weight `t` on `b`, of unit magnitude (Eq. 88)."""
    return a.lerp(b, t) / math.sqrt((1 - t) ** 2 + t**2)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Concatenation along channels with influence `t` of `b`, of unit magnitude (Eq. 103)."""
    na, nb = a.shape[1], b.shape[1]
    scale = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (scale / math.sqrt(na) * (1 - t)), b * (scale / math.sqrt(nb) * t)], dim=1)


class MPFourier(nn.Module):
    """Random Fourier features of unit magnitude (Eq. 75)."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int, bandwidth: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(channels) * bandwidth)
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,) to (B, channels), float32."""
        angles = torch.outer(x.float(), self.freqs.float()) + self.phases.float()
        return angles.cos() * math.sqrt(2)


class MPConv(nn.Module):
    """Convolution or linear layer whose weights are normalised in every forward pass (Eq. 47, 66).

    In training `force_unit_weights` normalises the stored weights too. For inference `fold` does it once and
    for all.

    Args:
        in_channels, out_channels: widths.
        kernel: spatial shape; empty for a linear layer.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Sequence[int] = ()) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(out_channels, in_channels, *kernel)))
        self.folded = False

    @torch.no_grad()
    def fold(self) -> None:
        """Replace the weights by what a forward pass multiplies with; the state dict is then another."""
        if not self.folded:
            self.weight.copy_(self._effective())
            self.folded = True

    def _effective(self) -> Tensor:
        weight = self.weight.float()
        return normalize(weight) / math.sqrt(weight[0].numel())

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        """Map (B, in) to (B, out), or (B, in, H, W) to (B, out, H, W), times `gain`."""
        weight = self.weight if self.folded else self._effective()
        if gain is not None:
            weight = weight * gain
        weight = weight.to(x.dtype)
        if weight.ndim == 2:
            return F.linear(x, weight) if self.training else rowwise_linear(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


@torch.no_grad()
def force_unit_weights(network: nn.Module) -> None:
    """Normalise the stored weights of every `MPConv` in `network`, sharded ones too.

    Done after every step of training: without it the weights grow and the steps turn them ever less (forced
    weight normalisation, Section 2.3).
    """
    for module in network.modules():
        if isinstance(module, MPConv):
            module.weight.copy_(normalize(module.weight))
