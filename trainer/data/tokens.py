"""Images as the tokens of all scales, encoded once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from models.networks.vqvae import VQVAE
from trainer.data.source import TrainingImages

_BATCH = 64


@dataclass(frozen=True)
class TokenizedImages:
    """Labelled token ids, and the tokenizer that they belong to.

    Attributes:
        ids: (N, L) int64.
        class_ids: (N,) int64.
        no_class: the id that stands for no label: the number of classes.
        vqvae: on the device of training.
    """

    ids: Tensor
    class_ids: Tensor
    no_class: int
    vqvae: VQVAE

    @classmethod
    @torch.inference_mode()
    def encode(cls, vqvae: VQVAE, images: TrainingImages, progress: Progress) -> Self:
        """Encode RGB images, which must have the tokenizer's resolution.

        Raises:
            DataError: an image cannot be read.
        """
        device = vqvae.post_quant_conv.weight.device
        task = progress.add_task("tokens", total=len(images))
        parts = []
        for start in range(0, len(images), _BATCH):
            indices = np.arange(start, min(start + _BATCH, len(images)))
            parts.append(vqvae.encode(images.read(indices).to(device)).cpu())
            progress.advance(task, len(indices))
        ids = torch.cat(parts).clone()
        return cls(ids, torch.from_numpy(images.labels), len(images.class_names), vqvae)

    def __len__(self) -> int:
        return len(self.ids)

    @torch.no_grad()
    def var_input(self, ids: Tensor) -> Tensor:
        """Return VAR's teacher-forcing input of ids (B, L): (B, L - tokens of scale 0, z_channels)."""
        return self.vqvae.var_input(ids)
