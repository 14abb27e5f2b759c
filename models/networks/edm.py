"""EDM preconditioning (Karras et al. 2022, arXiv 2206.00364, section 5 and Table 1, column "Ours")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.networks.adm_unet import DhariwalUNet
from models.networks.edm_layers import UNetTrunk
from models.networks.preconditioning import denoise
from models.networks.song_unet import SongUNet

UNETS: Mapping[str, Callable[..., UNetTrunk]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}


class EDMPrecond(nn.Module):
    """The denoiser D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (Eq. 7).

    Args:
        img_resolution, img_channels: geometry of the image.
        label_dim: number of classes; 0 for an unconditional model.
        sigma_data: standard deviation of the data.
        model_type: `SongUNet` (DDPM++ and NCSN++) or `DhariwalUNet` (ADM).
        unet: further arguments of the U-Net.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        sigma_data: float = 0.5,
        model_type: str = "DhariwalUNet",
        **unet: Any,
    ) -> None:
        super().__init__()
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        self.sigma_data = sigma_data
        if model_type not in UNETS:
            raise ValueError(f"unknown model_type {model_type!r}; known: {', '.join(UNETS)}")
        self.model = UNETS[model_type](
            img_resolution=img_resolution,
            in_channels=img_channels,
            out_channels=img_channels,
            label_dim=label_dim,
            **unet,
        )

    def prepare_inference(self, dtype: torch.dtype) -> None:
        """Cast the convolutions to `dtype`; conditioning and preconditioning stay float32."""
        self.model.cast_convolutions(dtype)

    @property
    def emb_channels(self) -> int:
        """Width of what the trunk is conditioned on."""
        return self.model.emb_channels

    def drop_trunk(self) -> None:
        """Free the trunk's weights, for good: something else computes it."""
        self.model.enc.to("meta")
        self.model.dec.to("meta")

    def embed(self, noise: Tensor, labels: Tensor | None, augment: Tensor | None = None) -> Tensor:
        """Return what `trunk` is conditioned on, (B, emb_channels) float32.

        Args:
            noise: c_noise, (B,) float32.
            labels: see `forward`.
            augment: see `forward`.
        """
        if not self.label_dim:
            labels = None
        elif labels is None:
            labels = torch.zeros(1, self.label_dim, device=noise.device)
        return self.model.embed(noise, labels, augment)

    def trunk(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return F (B, C, H, W), in the convolutions' dtype, of c_in x and the conditioning."""
        return self.model.trunk(x, emb)

    def forward(
        self, x: Tensor, sigma: Tensor, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """Denoise.

        Args:
            x: (B, C, H, W), data plus noise of standard deviation sigma.
            sigma: (B,) or a scalar.
            labels: (B, label_dim) one-hot floats; None means no label, all zeros.
            augment: (B, augment_dim) augmentation labels; None means none.

        Returns:
            The denoised estimate (B, C, H, W), float32.
        """
        return denoise(
            x,
            sigma,
            self.sigma_data,
            lambda scaled, noise: self.trunk(scaled, self.embed(noise, labels, augment)),
        )
