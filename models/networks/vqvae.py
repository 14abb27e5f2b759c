"""VQVAE: VAR's tokenizer, between images and token ids of all scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.networks.autoencoder import CHANNEL_MULTIPLIERS, Decoder, Encoder, conv3x3
from models.networks.quantizer import Quantizer
from models.networks.scales import Scales


class VQVAE(nn.Module):
    """The multi-scale VQVAE (Tian et al. 2024, arXiv 2404.02905, Section 3.2, Algorithms 1 and 2).

    Tensor names and shapes are those of the published checkpoint. The decoder with `post_quant_conv` may be
    cast to a lower precision; everything else works in float32.

    Args:
        patch_nums: side of each scale's token map; images have R * `patch_nums[-1]` pixels a side, with
            R = 16 in the published tokenizer.
        vocab_size: codes in the codebook.
        z_channels: channels of a code.
        ch: channels at full resolution.
        share_quant_resi: number of phi convolutions that the scales share.
        ch_mult: channels of each resolution as a multiple of `ch`; R = 2^(resolutions - 1).
    """

    def __init__(
        self,
        patch_nums: Sequence[int],
        *,
        vocab_size: int = 4096,
        z_channels: int = 32,
        ch: int = 160,
        share_quant_resi: int = 4,
        ch_mult: Sequence[int] = CHANNEL_MULTIPLIERS,
    ) -> None:
        super().__init__()
        self.reduction = 1 << (len(ch_mult) - 1)
        self.scales = Scales.of(patch_nums)
        self.encoder = Encoder(ch, z_channels, ch_mult)
        self.quant_conv = conv3x3(z_channels, z_channels)
        self.quantize = Quantizer(self.scales, vocab_size, z_channels, share_quant_resi)
        self.post_quant_conv = conv3x3(z_channels, z_channels)
        self.decoder = Decoder(ch, z_channels, ch_mult)

    @property
    def resolution(self) -> int:
        """Pixels along one side of an image."""
        return self.reduction * self.scales.sides[-1]

    def freeze_codes(self) -> None:
        """Leave only the decoder trainable: what ids mean stays as it is."""
        self.requires_grad_(False)
        for part in (self.post_quant_conv, self.decoder):
            part.requires_grad_(True)

    def encode(self, images: Tensor) -> Tensor:
        """Return the ids (B, L), int64, of images (B, 3, resolution, resolution) in [-1, 1]."""
        ids: Tensor = self.quantize(self.quant_conv(self.encoder(images)))
        return ids

    def decode(self, ids: Tensor) -> Tensor:
        """Return the images (B, 3, resolution, resolution) in [-1, 1] of ids (B, L)."""
        return self.decode_features(self.quantize.accumulate(ids)[-1])

    def decode_features(self, features: Tensor) -> Tensor:
        """Return the images in [-1, 1], float32, of finished feature maps (B, z_channels, H, W)."""
        features = features.to(self.post_quant_conv.weight.dtype)
        image: Tensor = self.decoder(self.post_quant_conv(features))
        return image.float().clamp(-1, 1)

    def var_input(self, ids: Tensor) -> Tensor:
        """Return VAR's teacher-forcing input (B, L - tokens of scale 0, z_channels) for ids (B, L)."""
        maps = self.quantize.accumulate(ids)[:-1]
        inputs = [self.quantize.input_of(scale, features) for scale, features in enumerate(maps, start=1)]
        return torch.cat(inputs, dim=1)
