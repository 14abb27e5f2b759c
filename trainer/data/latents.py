"""Images as latents of the Stable Diffusion VAE, in EDM2's zip layout."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.spec import SdVaeCodec
from trainer.data.archive import Archive
from trainer.data.decoding import BadImageError, decode_array
from trainer.data.source import Indices

Moments = npt.NDArray[np.float32]
"""(2 C, H, W): means, then deviations, of a latent's distribution."""


class LatentImages:
    """Draws a latent of each image and normalises it, as EDM2 does (Karras et al. 2024, arXiv 2312.02696).

    z = mean + deviation * noise (Kingma & Welling 2014, arXiv 1312.6114, Eq. 10), of which the network sees
    (z - codec.mean) / codec.std * codec.final_std. The noise is fixed by the image's index, so that the same
    indices give the same bits.

    Args:
        archive: its members are .npy of floats (2 C, H, W): means, then deviations.
        codec: how latents are normalised; has C means.

    Attributes:
        archive: where the latents lie.

    Raises:
        BadImageError: the first latent cannot be read.
    """

    def __init__(self, archive: Archive, codec: SdVaeCodec) -> None:
        self.archive = archive
        self._mean = np.array(codec.mean, np.float32)[:, None, None]
        self._scale = np.float32(codec.final_std) / np.array(codec.std, np.float32)[:, None, None]
        first = decode_moments(archive.content(0), archive.name(0))
        self.shape: tuple[int, int, int] = (len(first) // 2, first.shape[1], first.shape[2])
        if self.shape[0] != len(codec.mean):
            raise BadImageError(
                f"{archive.name(0)} must have {2 * len(codec.mean)} channels, means and deviations, "
                f"not {len(first)}"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Index = label."""
        return self.archive.class_names

    @property
    def labels(self) -> Indices:
        """(N,) int64."""
        return self.archive.labels

    def __len__(self) -> int:
        return len(self.archive)

    def read(self, indices: Indices) -> Tensor:
        """Return the latents (B, C, H, W), float32, of deviation about `codec.final_std`.

        Raises:
            BadImageError: a latent is damaged, or not of the first one's shape; names it.
        """
        return torch.from_numpy(np.stack([self._latent(int(index)) for index in indices]))

    def _latent(self, index: int) -> npt.NDArray[np.float32]:
        name = self.archive.name(index)
        moments = decode_moments(self.archive.content(index), name)
        channels, *sides = self.shape
        if moments.shape != (2 * channels, *sides):
            raise BadImageError(f"{name} has the shape {moments.shape}, the first {(2 * channels, *sides)}")
        mean, deviation = np.split(moments, 2)
        noise = np.random.default_rng(index).standard_normal(mean.shape, dtype=np.float32)
        latent: npt.NDArray[np.float32] = (mean + deviation * noise - self._mean) * self._scale
        return latent


def decode_moments(content: bytes, name: str) -> Moments:
    """Decode a member to (2 C, H, W) float32.

    Raises:
        BadImageError: it is damaged, of another kind, not finite, or has a negative deviation.
    """
    moments = decode_array(content, name)
    if not np.issubdtype(moments.dtype, np.floating) or moments.ndim != 3 or len(moments) % 2:
        raise BadImageError(
            f"{name} must be floats (2 C, H, W), means and deviations, not {moments.dtype} {moments.shape}"
        )
    moments = moments.astype(np.float32)
    if not np.isfinite(moments).all() or (moments[len(moments) // 2 :] < 0).any():
        raise BadImageError(
            f"{name} holds a value that is not finite, or a negative deviation; encode it again"
        )
    return moments


def holds_latents(archive: Archive) -> bool:
    """Say whether the archive holds latents: its first readable member is an .npy of floats."""
    for index, member in enumerate(archive.members):
        if not member.endswith(".npy"):
            return False
        with suppress(BadImageError):
            return np.issubdtype(decode_array(archive.content(index), member).dtype, np.floating)
    return False
