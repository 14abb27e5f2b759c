"""The encoder of the Stable Diffusion VAE that EDM2's latent models were trained with."""

from __future__ import annotations

import numpy as np
import torch

from engines.errors import EngineError
from engines.pixels import load_sd_vae
from trainer.data.latents import Moments
from trainer.data.pixels import Pixels
from trainer.errors import DataError


class SdVaeEncoder:
    """Gives the distribution of latents that an image has, in float32.

    EDM2 feeds the VAE images in [0, 1], so this does too (the decoder in `engines.pixels` gives these back).

    Args:
        repository: on the Hugging Face hub, or the path of a folder.
        device: where it runs.

    Attributes:
        repository: as given.

    Raises:
        DataError: the package `diffusers` does not work here, or the weights are not here.
    """

    def __init__(self, repository: str, device: torch.device) -> None:
        try:
            self._vae = load_sd_vae(repository, device, torch.float32)
        except EngineError as error:
            raise DataError(str(error)) from error
        self.repository = repository
        self._device = device

    @torch.inference_mode()
    def encode(self, pixels: Pixels) -> Moments:
        """Return means and deviations, (B, 2 C, H / 8, W / 8) float32, of (B, H, W, 3) uint8 images."""
        images = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2).float() / 255
        latents = self._vae.encode(images).latent_dist
        moments: Moments = torch.cat([latents.mean, latents.std], dim=1).cpu().numpy().astype(np.float32)
        return moments
