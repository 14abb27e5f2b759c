"""The multi-scale residual quantizer of VAR's tokenizer."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.scales import Scales

PHI_SHARE = 0.5


class Phi(nn.Conv2d):
    """The convolution that repairs what upsampling loses: half of the input plus half of its convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return (1 - PHI_SHARE) * x + PHI_SHARE * super().forward(x)


class SharedPhis(nn.Module):
    """A few `Phi`, each shared by neighbouring scales.

    Scale k, at ratio k / (scales - 1), takes the phi whose tick is nearest; `count` ticks lie evenly from
    1 / (3 count) to 1 - 1 / (3 count).
    """

    def __init__(self, count: int, channels: int) -> None:
        super().__init__()
        self.qresi_ls = nn.ModuleList(Phi(channels) for _ in range(count))
        # Some scales of the published models lie half way between two ticks, so that the rounding of these
        # float64 sums decides: keep them as they are.
        margin = 1 / 3 / count
        self.ticks = np.linspace(margin, 1 - margin, count)

    def index(self, ratio: float) -> int:
        """Return which phi serves the scale at `ratio` in [0, 1]."""
        return int(np.argmin(np.abs(self.ticks - ratio)))

    def forward(self, x: Tensor, ratio: float) -> Tensor:
        """Apply the phi of the scale at `ratio` to (B, C, H, W)."""
        out: Tensor = self.qresi_ls[self.index(ratio)](x)
        return out


class Quantizer(nn.Module):
    """Tokens of all scales <-> feature map (Tian et al. 2024, arXiv 2404.02905, Algorithms 1 and 2).

    A feature map is the sum over scales of upsampled, phi-convolved codes. `ema_vocab_hit_SV` (how often
    training used each code) comes with the checkpoints and is not used here.

    Args:
        scales: the token maps; the last one has the size of the feature map.
        vocab_size: codes in the codebook.
        channels: channels of a code and of the feature map.
        phis: number of shared `Phi`.
    """

    def __init__(self, scales: Scales, vocab_size: int, channels: int, phis: int) -> None:
        super().__init__()
        self.scales = scales
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(len(scales), vocab_size))
        self.quant_resi = SharedPhis(phis, channels)
        self.embedding = nn.Embedding(vocab_size, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Quantise a feature map (B, C, H, W) into ids of all scales (B, L), int64 (Algorithm 1)."""
        rest = features
        ids = []
        for scale in range(len(self.scales)):
            ids.append(self.nearest(self.input_of(scale, rest)))
            rest = rest - self.features_of(scale, ids[-1])
        return torch.cat(ids, dim=1)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the ids (B, N) of the codes nearest to `vectors` (B, N, C) in Euclidean distance."""
        codes = self.embedding.weight
        # |v|^2 is the same for every code and left out.
        return (codes.square().sum(1) - 2 * vectors @ codes.T).argmin(dim=-1)

    def features_of(self, scale: int, ids: Tensor) -> Tensor:
        """Return what the tokens of one scale, (B, side * side), add to the feature map (B, C, H, W)."""
        side, full = self.scales.sides[scale], self.scales.sides[-1]
        codes: Tensor = self.embedding(ids).transpose(1, 2).unflatten(2, (side, side))
        if side != full:
            codes = F.interpolate(codes, size=(full, full), mode="bicubic")
        out: Tensor = self.quant_resi(codes, self.scales.ratio(scale))
        return out

    def input_of(self, scale: int, features: Tensor) -> Tensor:
        """Average a feature map (B, C, H, W) down to the places of one scale, (B, side * side, C)."""
        side = self.scales.sides[scale]
        if side != features.shape[-1]:
            features = F.interpolate(features, size=(side, side), mode="area")
        return features.flatten(2).transpose(1, 2)

    def accumulate(self, ids: Tensor) -> list[Tensor]:
        """Return the feature map (B, C, H, W) after each scale of `ids` (B, L) (Algorithm 2)."""
        maps: list[Tensor] = []
        for scale, span in enumerate(self.scales.spans):
            added = self.features_of(scale, ids[:, span])
            maps.append(maps[-1] + added if maps else added)
        return maps
