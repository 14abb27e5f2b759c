"""The ADM U-Net (Dhariwal and Nichol 2021, arXiv 2105.05233) in the form that EDM trains (Table 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.edm_layers import (
    BlockStyle,
    Conv2d,
    Initializer,
    Linear,
    UNetBlock,
    UNetTrunk,
    group_norm,
    positional_embedding,
)

_INIT = Initializer("kaiming_uniform", weight=math.sqrt(1 / 3), bias=math.sqrt(1 / 3))
_INIT_ZERO = Initializer("kaiming_uniform", weight=0.0, bias=0.0)
_EPS = 1e-5


class DhariwalUNet(UNetTrunk):
    """U-Net over (B, in_channels, img_resolution, img_resolution); arguments as `SongUNet`'s."""

    def __init__(
        self,
        *,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.label_dim = label_dim
        self.label_dropout = label_dropout
        self.model_channels = model_channels
        self.emb_channels = emb_channels = model_channels * channel_mult_emb
        style = BlockStyle(
            emb_channels=emb_channels,
            dropout=dropout,
            skip_scale=1.0,
            eps=_EPS,
            channels_per_head=64,
            adaptive_scale=True,
            resample_proj=False,
            resample_filter=(1, 1),
            init=_INIT,
            init_zero=_INIT_ZERO,
            init_attn=_INIT,
        )
        self.map_augment = (
            Linear(augment_dim, model_channels, _INIT_ZERO, bias=False) if augment_dim else None
        )
        self.map_layer0 = Linear(model_channels, emb_channels, _INIT)
        self.map_layer1 = Linear(emb_channels, emb_channels, _INIT)
        self.map_label: Linear | None = None
        if label_dim:
            init = Initializer("kaiming_normal", weight=math.sqrt(label_dim))
            self.map_label = Linear(label_dim, emb_channels, init, bias=False)

        widths = [model_channels * mult for mult in channel_mult]
        names = [f"{img_resolution >> level}x{img_resolution >> level}" for level in range(len(widths))]
        attends = [img_resolution >> level in attn_resolutions for level in range(len(widths))]
        self.enc = nn.ModuleDict()
        channels = widths[0]
        skips: list[int] = []
        for level, (name, width) in enumerate(zip(names, widths, strict=True)):
            if level == 0:
                self.enc[f"{name}_conv"] = Conv2d(in_channels, channels, 3, _INIT)
            else:
                self.enc[f"{name}_down"] = UNetBlock(channels, channels, style, resample="down")
            skips.append(channels)
            for index in range(num_blocks):
                self.enc[f"{name}_block{index}"] = UNetBlock(channels, width, style, attention=attends[level])
                channels = width
                skips.append(channels)

        self.dec = nn.ModuleDict()
        for level in reversed(range(len(widths))):
            name, width = names[level], widths[level]
            if level == len(widths) - 1:
                self.dec[f"{name}_in0"] = UNetBlock(channels, channels, style, attention=True)
                self.dec[f"{name}_in1"] = UNetBlock(channels, channels, style)
            else:
                self.dec[f"{name}_up"] = UNetBlock(channels, channels, style, resample="up")
            for index in range(num_blocks + 1):
                joined = channels + skips.pop()
                self.dec[f"{name}_block{index}"] = UNetBlock(joined, width, style, attention=attends[level])
                channels = width
        self.out_norm = group_norm(channels, _EPS)
        self.out_conv = Conv2d(channels, out_channels, 3, _INIT_ZERO)

    def embed(self, noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """Return the conditioning (B, emb_channels) of noise levels (B,), labels and augmentation labels."""
        emb = positional_embedding(noise, self.model_channels, endpoint=False)
        if self.map_augment is not None and augment is not None:
            emb = emb + self.map_augment(augment)
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None and labels is not None:
            if self.training and self.label_dropout:
                keep = torch.rand(labels.shape[0], 1, device=labels.device) >= self.label_dropout
                labels = labels * keep
            emb = emb + self.map_label(labels)
        return F.silu(emb)

    def trunk(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return the raw output F (B, out_channels, H, W) in the compute dtype."""
        x = x.to(self.compute_dtype)
        skips: list[Tensor] = []
        for block in self.enc.values():
            x = block(x, emb) if isinstance(block, UNetBlock) else block(x)
            skips.append(x)
        for block in self.dec.values():
            if x.shape[1] != block.in_channels:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, emb)
        output: Tensor = self.out_conv(F.silu(self.out_norm(x)))
        return output
