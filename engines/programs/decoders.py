"""Pixel decoders as programs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engines.programs.program import Port, Program, Range
from models.networks.vqvae import VQVAE
from models.spec import SdVaeCodec

LARGEST_SIDE = 256
"""Up to this side images are decoded in batches; larger ones singly, for their activations' memory."""


class VqvaeDecoder(nn.Module):
    """The tokenizer's decoder (Tian et al. 2024, arXiv 2404.02905, Section 3.2)."""

    def __init__(self, vqvae: VQVAE) -> None:
        super().__init__()
        self.vqvae = vqvae

    def forward(self, features: Tensor) -> Tensor:
        """Map feature maps (B, z_channels, H, W) to images (B, 3, R H, R W) in [-1, 1], all float32."""
        return self.vqvae.decode_features(features)


class SdVaeImages(nn.Module):
    """The Stable Diffusion VAE's decoder, from the latents of EDM2 (Karras et al. 2024, arXiv 2312.02696).

    Args:
        vae: a `diffusers.AutoencoderKL`.
        codec: the latents' mean and deviation.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, vae: nn.Module, codec: SdVaeCodec) -> None:
        super().__init__()
        self.vae = vae
        self.register_buffer("mean", torch.tensor(codec.mean).reshape(1, -1, 1, 1), persistent=False)
        std = torch.tensor(codec.std).reshape(1, -1, 1, 1)
        self.register_buffer("scale", std / codec.final_std, persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Map latents (B, 4, H, W) to images (B, 3, 8 H, 8 W) in [-1, 1], all float32."""
        vae: Any = self.vae
        images: Tensor = vae.decode((samples * self.scale + self.mean).to(vae.dtype)).sample
        return images.float().clamp(0, 1) * 2 - 1


def vqvae_program(vqvae: VQVAE, *, max_rows: int) -> Program:
    """Return the program `pixels` of a tokenizer; its decoder has the precision to compute in."""
    side = vqvae.scales.sides[-1]
    channels = vqvae.post_quant_conv.in_channels
    return _program(VqvaeDecoder(vqvae), channels, side, vqvae.reduction, max_rows)


def sd_vae_program(vae: nn.Module, codec: SdVaeCodec, *, side: int, max_rows: int) -> Program:
    """Return the program `pixels` of latents of `side`; the VAE has the precision to compute in."""
    return _program(SdVaeImages(vae, codec), len(codec.mean), side, 8, max_rows)


def _program(module: nn.Module, channels: int, side: int, factor: int, max_rows: int) -> Program:
    pixels = factor * side
    most = max_rows if pixels <= LARGEST_SIDE else 1
    return Program(
        name="pixels",
        module=module.eval(),
        inputs=(Port("features", ("batch", channels, side, side)),),
        outputs=(Port("images", ("batch", 3, pixels, pixels)),),
        profiles=({"batch": Range(1, most, most)},),
    )
