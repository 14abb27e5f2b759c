"""From what a sampler ends with to 8-bit images."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import convert_conv2d_weight_memory_format

from engines.errors import EngineError
from engines.footprint import weights_nbytes
from models.networks.doubling import fold_doubling
from models.spec import Codec, PixelCodec, SdVaeCodec

Pixels = npt.NDArray[np.uint8]


def to_pixels(images: Tensor) -> Pixels:
    """Map (B, 3, H, W) from [-1, 1] to the nearest 8-bit levels, (B, H, W, 3); values outside are clipped."""
    levels = ((images.float() + 1) * (255 / 2)).round().clamp(0, 255).to(torch.uint8)
    return np.asarray(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy())


class Decoder(Protocol):
    """Decodes samples (B, C, H, W) to images (B, H', W', 3), uint8.

    Attributes:
        call_cost: what a call costs beside its rows, in rows; see `Buckets`.
        nbytes: bytes of its weights.
    """

    call_cost: float
    nbytes: int

    def decode(self, samples: Tensor) -> Tensor:
        """Return the images, (B, 3, H', W') in [-1, 1]."""
        ...

    def approximate(self, samples: Tensor) -> Tensor:
        """Return roughly the images at next to no cost, (B, 3, h, w) in [-1, 1], maybe smaller."""
        ...


class PixelDecoder:
    """Unfolds channels into squares of `fold` x `fold` pixels."""

    call_cost = 0.0
    nbytes = 0

    def __init__(self, codec: PixelCodec) -> None:
        self._fold = codec.fold

    def decode(self, samples: Tensor) -> Tensor:
        """Return the images, (B, 3, fold H, fold W) in [-1, 1]."""
        return F.pixel_shuffle(samples, self._fold)

    approximate = decode


SD_VAE_SCALE = 0.18215
"""What Stable Diffusion multiplies its VAE's latents with."""

SD_VAE_COLOURS = (
    (0.298, 0.187, -0.158, -0.184),
    (0.207, 0.286, 0.189, -0.271),
    (0.208, 0.173, 0.264, -0.473),
)
"""Red, green and blue, as the VAE gives them out, of a scaled latent. A fit for Stable Diffusion 1.4, whose
encoder is the one of `sd-vae-ft-mse`, from
https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204"""


class SdVaeDecoder:
    """The Stable Diffusion VAE that EDM2's latent models were trained with.

    Its weights come from the Hugging Face hub's cache. EDM2 feeds it images in [0, 1]: it decodes to these.
    """

    call_cost = 0.0

    def __init__(self, codec: SdVaeCodec, device: torch.device, dtype: torch.dtype) -> None:
        self._vae = load_sd_vae(codec.repository, device, dtype)
        if device.type == "cpu":
            _prepare_for_cpu(self._vae.decoder)
        self.nbytes = weights_nbytes(self._vae)
        self._mean = torch.tensor(codec.mean, device=device).reshape(1, -1, 1, 1)
        self._scale = torch.tensor(codec.std, device=device).reshape(1, -1, 1, 1) / codec.final_std
        self._dtype = dtype

    def decode(self, samples: Tensor) -> Tensor:
        """Return the images, (B, 3, 8 H, 8 W) in [-1, 1]."""
        raw = samples * self._scale + self._mean
        images: Tensor = self._vae.decode(raw.to(self._dtype)).sample
        return images.float().clamp(0, 1) * 2 - 1

    def approximate(self, samples: Tensor) -> Tensor:
        """Return the latents' colours, (B, 3, H, W) in [-1, 1]; the VAE itself is not run."""
        latents = (samples * self._scale + self._mean) * SD_VAE_SCALE
        colours = torch.tensor(SD_VAE_COLOURS, device=samples.device)
        return torch.einsum("rc,bchw->brhw", colours, latents).clamp(0, 1) * 2 - 1


def load_sd_vae(repository: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Return the frozen Stable Diffusion VAE of `repository`, on the Hugging Face hub or a folder.

    Raises:
        EngineError: the package `diffusers` does not work here, or the weights are not here.
    """
    try:
        from diffusers import AutoencoderKL  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:  # diffusers reports its own broken imports as the latter
        raise EngineError(
            f"the Stable Diffusion VAE needs diffusers: pip install 'ddo-serve[sd-vae]' ({error})"
        ) from error
    try:
        vae = AutoencoderKL.from_pretrained(repository, torch_dtype=dtype, use_safetensors=True)
    except OSError as error:
        raise EngineError(
            f"cannot load {repository}: {error}. Where there is no network, download it elsewhere with "
            f"`hf download {repository}` and copy the hub's cache folder here."
        ) from error
    return vae.to(device).eval().requires_grad_(False)


def _prepare_for_cpu(decoder: nn.Module) -> None:
    from diffusers.models.upsampling import Upsample2D  # noqa: PLC0415

    fold_doubling(decoder, Upsample2D)
    convert_conv2d_weight_memory_format(decoder, torch.channels_last)


def make_decoder(codec: Codec, device: torch.device, dtype: torch.dtype) -> Decoder:
    """Return the decoder of a diffusion model.

    Raises:
        EngineError: it needs a package or weights that are not here.
    """
    match codec:
        case PixelCodec():
            return PixelDecoder(codec)
        case SdVaeCodec():
            return SdVaeDecoder(codec, device, dtype)
        case _:
            raise EngineError(f"a diffusion model cannot decode with the codec {codec.kind!r}")
