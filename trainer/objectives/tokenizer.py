"""Training of VAR's tokenizer, the multi-scale VQVAE (Tian et al. 2024, arXiv 2404.02905, Eq. 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.quantizer import Quantizer
from models.networks.vqvae import VQVAE
from trainer.data.order import Order
from trainer.data.source import TrainingImages

COMMITMENT = 0.25
"""Weight of the encoder's pull towards the codes (van den Oord et al. 2017, arXiv 1711.00937, Eq. 3)."""

REVIVAL = 0.25
"""Weight of each code's pull towards the vector that is nearest to it, which brings unused codes back."""


def quantize(quantizer: Quantizer, features: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a feature map; its gradient passes straight through.

    Args:
        quantizer: the codes of all scales.
        features: (B, C, H, W), f in the paper.

    Returns:
        The quantised map, whose gradient is that of `features`, and the codebook's loss: the mean over scales
        of |sg(f) - g_k|^2 + COMMITMENT |f - sg(g_k)|^2, where g_k is the sum of the first k scales, and the
        codes' revival. Every partial sum is pulled to the whole map, so that the coarse scales already carry
        the image.
    """
    rest = features.detach()
    total = torch.zeros_like(rest)
    loss = features.new_zeros(())
    vectors = []
    for scale in range(len(quantizer.scales)):
        vectors.append(quantizer.input_of(scale, rest))
        added = quantizer.features_of(scale, quantizer.nearest(vectors[-1]))
        total = total + added
        rest = rest - added.detach()
        loss = loss + F.mse_loss(total, features.detach())
        loss = loss + COMMITMENT * F.mse_loss(features, total.detach())
    loss = loss / len(quantizer.scales)
    seen = torch.cat(vectors, dim=1).flatten(0, 1)
    codes = quantizer.embedding.weight
    nearest = seen[torch.cdist(codes.detach(), seen).argmin(dim=1)]
    return features + (total - features).detach(), loss + REVIVAL * F.mse_loss(codes, nearest)


class TokenizerObjective:
    """Reconstruction by mean absolute and squared error, and the codebook's loss.

    Args:
        images: RGB, not folded.
        seed: of the order of images.
        device: of the batches.
    """

    def __init__(self, images: TrainingImages, *, seed: int, device: torch.device) -> None:
        self._images = images
        self._order = Order(len(images), seed)
        self._device = device

    def batch(self, rows: range) -> Tensor:
        """Return the images (B, 3, H, W) of these rows."""
        return self._images.read(self._order[rows.start : rows.stop]).to(self._device)

    def loss(self, network: nn.Module, batch: Tensor) -> Mapping[str, Tensor]:
        """Return `loss`, and its parts `reconstruction` (mean absolute error) and `codebook`."""
        vqvae = cast(VQVAE, network)
        features = vqvae.quant_conv(vqvae.encoder(batch)).float()
        # Which code is nearest must not depend on the precision of the convolutions.
        with torch.autocast(features.device.type, enabled=False):
            quantized, codebook = quantize(vqvae.quantize, features)
        decoded = vqvae.decoder(vqvae.post_quant_conv(quantized)).float()
        absolute = F.l1_loss(decoded, batch)
        return {
            "loss": absolute + F.mse_loss(decoded, batch) + codebook,
            "reconstruction": absolute,
            "codebook": codebook,
        }
