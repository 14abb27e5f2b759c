"""The convolutional encoder and decoder between pixels and VAR's feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

CHANNEL_MULTIPLIERS = (1, 1, 2, 2, 4)
"""Widths of the published tokenizer's resolutions, as multiples of its `ch`."""

BLOCKS = 2
IMAGE_CHANNELS = 3


def group_norm(channels: int) -> nn.GroupNorm:
    """Return the normalisation used throughout: 32 groups."""
    return nn.GroupNorm(32, channels, eps=1e-6)


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a convolution that keeps the image size."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


class ResidualBlock(nn.Module):
    """Two convolutions, each after normalisation and SiLU, around a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = group_norm(inputs)
        self.conv1 = conv3x3(inputs, outputs)
        self.norm2 = group_norm(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, kernel_size=1)
        self.widens = inputs != outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = h + (self.nin_shortcut(x) if self.widens else x)
        return out


class AttentionBlock(nn.Module):
    """Single-head self-attention over all pixels, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, kernel_size=1)
        self.proj_out = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)
        h = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)
        out: Tensor = x + self.proj_out(h.reshape(x.shape))
        return out


class Downsample(nn.Module):
    """Halves the image by a strided convolution, padded at the right and at the bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H / 2, W / 2)."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Doubles the image by repeating pixels, then convolves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2 H, 2 W)."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return out


class Level(nn.Module):
    """The blocks of one resolution; `attn` is empty but at the lowest."""

    def __init__(self, inputs: int, outputs: int, blocks: int, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks)
        )
        self.attn = nn.ModuleList(AttentionBlock(outputs) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        return x


class DownLevel(Level):
    """A level of the encoder, halving the image behind it where `resample` says so."""

    def __init__(self, inputs: int, outputs: int, attention: bool, resample: bool) -> None:
        super().__init__(inputs, outputs, BLOCKS, attention)
        self.downsample = Downsample(outputs) if resample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / 2, W / 2)."""
        out: Tensor = self.downsample(super().forward(x))
        return out


class UpLevel(Level):
    """A level of the decoder, doubling the image behind it where `resample` says so."""

    def __init__(self, inputs: int, outputs: int, attention: bool, resample: bool) -> None:
        super().__init__(inputs, outputs, BLOCKS + 1, attention)
        self.upsample = Upsample(outputs) if resample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2 H, 2 W)."""
        out: Tensor = self.upsample(super().forward(x))
        return out


class Middle(nn.Module):
    """The blocks at the lowest resolution, between encoder or decoder and the feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Encoder(nn.Module):
    """Pixels (B, 3, H, W) to features (B, z_channels, H / R, W / R); R = 2^(resolutions - 1).

    The encoder of VQGAN (Esser et al. 2021, arXiv 2012.09841, Table 7), a resolution for each of `ch_mult`.
    """

    def __init__(self, ch: int, z_channels: int, ch_mult: Sequence[int]) -> None:
        super().__init__()
        widths = [ch * multiplier for multiplier in ch_mult]
        lowest = len(widths) - 1
        self.conv_in = conv3x3(IMAGE_CHANNELS, ch)
        self.down = nn.ModuleList(
            DownLevel(inputs, outputs, attention=i == lowest, resample=i != lowest)
            for i, (inputs, outputs) in enumerate(zip([ch, *widths], widths, strict=False))
        )
        self.mid = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = conv3x3(widths[-1], z_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images in [-1, 1]."""
        h = self.conv_in(images)
        for level in self.down:
            h = level(h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(h))))
        return out


class Decoder(nn.Module):
    """Features (B, z_channels, H / R, W / R) to pixels (B, 3, H, W), the encoder mirrored."""

    def __init__(self, ch: int, z_channels: int, ch_mult: Sequence[int]) -> None:
        super().__init__()
        widths = [ch * multiplier for multiplier in ch_mult]
        lowest = len(widths) - 1
        self.conv_in = conv3x3(z_channels, widths[-1])
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            UpLevel(inputs, outputs, attention=i == lowest, resample=i != 0)
            for i, (inputs, outputs) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True))
        )
        self.norm_out = group_norm(ch)
        self.conv_out = conv3x3(ch, IMAGE_CHANNELS)

    def forward(self, features: Tensor) -> Tensor:
        """Decode to images, about in [-1, 1]."""
        h = self.mid(self.conv_in(features))
        for level in reversed(self.up):
            h = level(h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return out
