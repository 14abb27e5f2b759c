"""Layers of the EDM U-Nets (Karras et al. 2022, arXiv 2206.00364, Appendix F.1 and Table 7).

Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.rowwise import rowwise_linear


@dataclass(frozen=True)
class Initializer:
    """How fresh weights are drawn: a uniform law scaled by `weight`, biases scaled by `bias`."""

    mode: str
    weight: float = 1.0
    bias: float = 0.0

    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, *, bias: bool = False) -> Tensor:
        """Draw a tensor of `shape`; Xavier or Kaiming bounds by `mode` (Glorot 2010, He 2015)."""
        scale = self.bias if bias else self.weight
        values = torch.empty(shape)
        match self.mode:
            case "xavier_uniform":
                bound = math.sqrt(6 / (fan_in + fan_out)) * scale
                return nn.init.uniform_(values, -bound, bound)
            case "kaiming_uniform":
                bound = math.sqrt(3 / fan_in) * scale
                return nn.init.uniform_(values, -bound, bound)
            case "kaiming_normal":
                return nn.init.normal_(values, std=math.sqrt(1 / fan_in) * scale)
        raise ValueError(f"unknown initialisation {self.mode!r}")


class Linear(nn.Module):
    """A fully connected layer; `weight` (out, in), `bias` (out,)."""

    def __init__(self, in_features: int, out_features: int, init: Initializer, bias: bool = True) -> None:
        super().__init__()
        self.in_features = in_features
        self.weight = nn.Parameter(init((out_features, in_features), in_features, out_features))
        values = init((out_features,), in_features, out_features, bias=True) if bias else None
        self.bias = None if values is None else nn.Parameter(values)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in) to (B, out)."""
        linear = F.linear if self.training else rowwise_linear
        return linear(x, self.weight, self.bias)


class Conv2d(nn.Module):
    """A convolution that may first resample by two with a separable filter; kernel 0 only resamples.

    With `fused` the filter follows the convolution and the padding of both is applied at once, which
    differs at the image's border.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        init: Initializer,
        *,
        resample: str | None = None,
        resample_filter: tuple[int, ...] = (1, 1),
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel = kernel
        self.resample = resample
        self.fused = fused
        self.is_box = tuple(resample_filter) == (1, 1)
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        if kernel:
            fans = (in_channels * kernel**2, out_channels * kernel**2)
            self.weight = nn.Parameter(init((out_channels, in_channels, kernel, kernel), *fans))
            self.bias = nn.Parameter(init((out_channels,), *fans, bias=True))
        if resample:
            taps = torch.tensor(resample_filter, dtype=torch.float32)
            self.register_buffer("resample_filter", (torch.outer(taps, taps) / taps.sum() ** 2)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H', W') with H' = 2H, H / 2 or H."""
        padding = self.kernel // 2
        if self.resample is None:
            return self._convolve(x, padding)
        taps = (self.resample_filter.shape[-1] - 1) // 2
        if self.fused and self.resample == "down":
            return self._downsample(self._convolve(x, padding + taps), 0)
        if self.fused:
            upsampled = self._upsample(x, max(taps - padding, 0))
            return self._convolve(upsampled, max(padding - taps, 0))
        x = self._downsample(x, taps) if self.resample == "down" else self._upsample(x, taps)
        return self._convolve(x, padding)

    def _convolve(self, x: Tensor, padding: int) -> Tensor:
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=padding)

    def _downsample(self, x: Tensor, padding: int) -> Tensor:
        if self.is_box:  # a 2x2 mean: the same numbers from a much faster kernel
            return F.avg_pool2d(x, 2)
        taps = self.resample_filter.to(x.dtype).tile(x.shape[1], 1, 1, 1)
        return F.conv2d(x, taps, stride=2, padding=padding, groups=x.shape[1])

    def _upsample(self, x: Tensor, padding: int) -> Tensor:
        if self.is_box:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        taps = (self.resample_filter * 4).to(x.dtype).tile(x.shape[1], 1, 1, 1)
        return F.conv_transpose2d(x, taps, stride=2, padding=padding, groups=x.shape[1])


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Return the group normalisation of both U-Nets: 32 groups, but never fewer than 4 channels in one."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


def positional_embedding(noise: Tensor, channels: int, *, endpoint: bool) -> Tensor:
    """Embed (B,) noise levels as (B, channels): cosines, then sines (Vaswani et al. 2017, section 3.5).

    `endpoint` spaces the frequencies so that the last one is 1 / 10000, as DDPM++ does.
    """
    half = channels // 2
    exponents = torch.arange(half, dtype=torch.float32, device=noise.device) / (half - int(endpoint))
    angles = torch.outer(noise, (1 / 10000) ** exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class FourierEmbedding(nn.Module):
    """Random Fourier features of the noise level (Tancik et al. 2020; NCSN++): cosines, then sines."""

    freqs: Tensor

    def __init__(self, channels: int, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(channels // 2) * scale)

    def forward(self, noise: Tensor) -> Tensor:
        """Map (B,) to (B, channels)."""
        angles = torch.outer(noise, 2 * math.pi * self.freqs.to(noise.dtype))
        return torch.cat([angles.cos(), angles.sin()], dim=1)


@dataclass(frozen=True)
class BlockStyle:
    """What distinguishes the residual blocks of the two U-Nets.

    Attributes:
        emb_channels: width of the conditioning vector.
        dropout: probability, training only.
        skip_scale: factor on each residual sum.
        eps: of the group normalisations.
        channels_per_head: width of an attention head; None: one head.
        adaptive_scale: the conditioning scales and shifts (else it only shifts).
        resample_proj: a resampling shortcut has a 1x1 convolution even where the width stays.
        resample_filter: taps of the up- and downsampling filter.
        init, init_zero, init_attn: laws of the weights, of the last layers, of the attention.
    """

    emb_channels: int
    dropout: float
    skip_scale: float
    eps: float
    channels_per_head: int | None
    adaptive_scale: bool
    resample_proj: bool
    resample_filter: tuple[int, ...]
    init: Initializer
    init_zero: Initializer
    init_attn: Initializer


class UNetBlock(nn.Module):
    """Residual block with noise conditioning and optional self-attention (Table 7)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style: BlockStyle,
        *,
        resample: str | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.style = style
        filters = {"resample": resample, "resample_filter": style.resample_filter}
        self.norm0 = group_norm(in_channels, style.eps)
        self.conv0 = Conv2d(in_channels, out_channels, 3, style.init, **filters)  # type: ignore[arg-type]
        self.affine = Linear(
            style.emb_channels, out_channels * (2 if style.adaptive_scale else 1), style.init
        )
        self.norm1 = group_norm(out_channels, style.eps)
        self.conv1 = Conv2d(out_channels, out_channels, 3, style.init_zero)
        self.skip: Conv2d | None = None
        if out_channels != in_channels or resample:
            kernel = 1 if style.resample_proj or out_channels != in_channels else 0
            self.skip = Conv2d(in_channels, out_channels, kernel, style.init, **filters)  # type: ignore[arg-type]
        self.heads = 0
        if attention:
            self.heads = out_channels // style.channels_per_head if style.channels_per_head else 1
            self.norm2 = group_norm(out_channels, style.eps)
            self.qkv = Conv2d(out_channels, out_channels * 3, 1, style.init_attn)
            self.proj = Conv2d(out_channels, out_channels, 1, style.init_zero)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map (B, in, H, W) and the conditioning (B, emb_channels), float32, to (B, out, H', W')."""
        shortcut = x if self.skip is None else self.skip(x)
        x = self.conv0(F.silu(self.norm0(x)))
        condition = self.affine(emb)[:, :, None, None].to(x.dtype)
        if self.style.adaptive_scale:
            scale, shift = condition.chunk(2, dim=1)
            x = F.silu(torch.addcmul(shift, self.norm1(x), scale + 1))
        else:
            x = F.silu(self.norm1(x + condition))
        x = self.conv1(F.dropout(x, self.style.dropout, self.training))
        x = (x + shortcut) * self.style.skip_scale
        if self.heads:
            x = (self.proj(self._attend(self.qkv(self.norm2(x)))) + x) * self.style.skip_scale
        return x

    def _attend(self, qkv: Tensor) -> Tensor:
        batch, channels, height, width = qkv.shape
        # Channels run head, then feature, then (q, k, v).
        split = qkv.reshape(batch, self.heads, channels // (3 * self.heads), 3, height * width)
        q, k, v = split.permute(3, 0, 1, 4, 2).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v)
        return attended.transpose(-1, -2).reshape(batch, channels // 3, height, width)


class UNetTrunk(nn.Module, ABC):
    """What both U-Nets share: conditioning apart from the rest, and the precision that the rest runs in.

    Attributes:
        enc, dec: the convolutional blocks; everything else but the last layers is conditioning.
        emb_channels: width of the conditioning.
    """

    enc: nn.ModuleDict
    dec: nn.ModuleDict
    emb_channels: int

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the convolutions' weights: activations are cast to it, conditioning stays float32."""
        return next(self.enc.parameters()).dtype

    @abstractmethod
    def embed(self, noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """Return the conditioning (B, emb_channels) of noise levels (B,), labels and augmentation labels."""

    @abstractmethod
    def trunk(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return the raw output F (B, out_channels, H, W) in the compute dtype."""

    def cast_convolutions(self, dtype: torch.dtype) -> None:
        """Cast convolutions and normalisations; linear layers are conditioning and stay float32."""
        for module in self.modules():
            if isinstance(module, Conv2d | nn.GroupNorm):
                module.to(dtype)
