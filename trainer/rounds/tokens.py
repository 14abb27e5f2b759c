"""Token ids on disk, so that images are encoded once a run and not once a start."""

from __future__ import annotations

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from rich.progress import Progress

from models.networks.vqvae import VQVAE
from trainer.data.replacing import replacing
from trainer.data.source import TrainingImages
from trainer.data.tokens import TokenizedImages
from trainer.errors import DataError
from trainer.training.processes import Processes


def tokens_of(
    path: Path, vqvae: VQVAE, images: TrainingImages, processes: Processes, progress: Progress
) -> TokenizedImages:
    """Return the tokens of `images`: those in `path`, which process 0 writes where there are none.

    Raises:
        DataError: an image cannot be read, or `path` neither written nor read.
    """
    if processes.leads and not path.exists():
        encoded = TokenizedImages.encode(vqvae, images, progress)
        with replacing(path) as file:
            np.savez(file, ids=encoded.ids.numpy(), class_ids=encoded.class_ids.numpy())
    processes.wait()
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ids, class_ids = torch.from_numpy(arrays["ids"]), torch.from_numpy(arrays["class_ids"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(f"cannot read the tokens {path}: {error}; delete it to encode again") from error
    return TokenizedImages(ids, class_ids, len(images.class_names), vqvae)
