"""Latents that a model made, in memory."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.data.replacing import replacing
from trainer.data.source import Indices
from trainer.errors import DataError

Latents = npt.NDArray[np.float16]
"""(N, C, H, W)."""


@dataclass(frozen=True, eq=False)
class GeneratedLatents:
    """Labelled samples of a latent diffusion model, as its sampler ends with them.

    Attributes:
        latents: (N, C, H, W) float16.
        labels: (N,) int64, index into `class_names`.
        class_names: index = label.
    """

    latents: Latents
    labels: Indices
    class_names: tuple[str, ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: the file is unreadable or lacks an array.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names = tuple(str(name) for name in arrays["class_names"])
                return cls(arrays["images"], arrays["labels"], names)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise DataError(f"cannot read the latents {path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write an .npz with `images`, `labels` and `class_names`; it appears whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        with replacing(path) as file:
            np.savez(file, images=self.latents, labels=self.labels, class_names=np.array(self.class_names))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one latent."""
        channels, height, width = self.latents.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.latents)

    def read(self, indices: Indices) -> Tensor:
        """Return the latents (B, C, H, W), float32."""
        return torch.from_numpy(self.latents[indices]).float()
