"""Token ids on disk, so that images are encoded, or drawn, once a run and not once a start."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np
import torch
from rich.progress import Progress

from models.networks.vqvae import VQVAE
from trainer.data.replacing import replacing
from trainer.data.source import Indices, TrainingImages
from trainer.data.tokens import TokenizedImages
from trainer.errors import DataError
from trainer.training.processes import Processes


@dataclass(frozen=True, eq=False)
class LabelledTokens:
    """Token ids of images.

    Attributes:
        ids: (N, L) int64.
        labels: (N,) int64.
        classes: how many there are.
    """

    ids: Indices
    labels: Indices
    classes: int

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: the file is unreadable or lacks an array.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(arrays["ids"], arrays["class_ids"], int(arrays["classes"]))
        except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise DataError(f"cannot read the tokens {path}: {error}; delete it to make it again") from error

    def save(self, path: Path) -> None:
        """Write an .npz with `ids`, `class_ids` and `classes`; it appears whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        with replacing(path) as file:
            np.savez(file, ids=self.ids, class_ids=self.labels, classes=self.classes)

    def of(self, vqvae: VQVAE) -> TokenizedImages:
        """Return them as training takes them."""
        return TokenizedImages(torch.from_numpy(self.ids), torch.from_numpy(self.labels), self.classes, vqvae)


def tokens_of(
    path: Path, vqvae: VQVAE, images: TrainingImages, processes: Processes, progress: Progress
) -> TokenizedImages:
    """Return the tokens of `images`: those in `path`, which process 0 writes where there are none.

    Raises:
        DataError: an image cannot be read, or `path` neither written nor read.
    """
    if processes.leads and not path.exists():
        encoded = TokenizedImages.encode(vqvae, images, progress)
        LabelledTokens(encoded.ids.numpy(), images.labels, len(images.class_names)).save(path)
    processes.wait()
    return LabelledTokens.load(path).of(vqvae)
