"""Inception-v3, the features that FID is defined on."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from engines.pixels import Pixels
from trainer.errors import TrainerError
from trainer.evaluation.features import Features

INCEPTION_NAME = "inception-v3"

_PUBLISHED = "6726825d"
"""Start of the SHA-256 of the published weights; it is part of their file's name."""


class InceptionV3:
    """The 2048 pooled features of Inception-v3, as torch-fidelity ports it from TensorFlow.

    FID (Heusel et al. 2017, arXiv 1706.08500) is the Frechet distance on them. Images are resized to
    299 x 299 by the network's own bilinear rule.

    Args:
        device: where it runs, in float32.
        weights: file of the weights; None: torch-fidelity's, downloaded once into torch's hub folder.

    Attributes:
        name: `inception-v3` for the published weights; others add the start of their SHA-256, since a
            Frechet distance on them is no FID.

    Raises:
        TrainerError: torch-fidelity cannot be imported, or the weights cannot be had or do not fit.
    """

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        library = _import_torch_fidelity()
        path = weights or _download(library.URL_INCEPTION_V3)
        digest = _check(path)
        published = digest.startswith(_PUBLISHED)
        self.name = INCEPTION_NAME if published else f"{INCEPTION_NAME} (weights {digest[:8]})"
        self._device = device
        try:
            network = library.FeatureExtractorInceptionV3(
                INCEPTION_NAME, ["2048"], feature_extractor_weights_path=str(path)
            )
        except RuntimeError as error:
            raise TrainerError(f"{path} does not hold the weights of Inception-v3: {error}") from error
        self._network = network.to(device)

    @torch.inference_mode()
    def __call__(self, images: Pixels) -> Features:
        """Return (N, 2048) float32 features of (N, H, W, 3) uint8 RGB images."""
        pixels = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)
        (pooled,) = self._network(pixels)
        features: Features = pooled.cpu().numpy()
        return features


def _import_torch_fidelity() -> Any:
    try:
        return importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except (ImportError, RuntimeError, OSError) as error:  # torchvision for another torch raises the last two
        raise TrainerError(
            f"Inception-v3 needs torch-fidelity and a torchvision built for torch {torch.__version__}: "
            f"install the `fid` extra, with torchvision from the index that torch came from ({error})"
        ) from error


def _download(url: str) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=_PUBLISHED)
    except (OSError, RuntimeError) as error:
        raise TrainerError(
            f"the weights of Inception-v3 cannot be downloaded from {url} ({error}): "
            "fetch them by other means and name the file with --weights"
        ) from error
    return path


def _check(path: Path) -> str:
    """Return the file's SHA-256 after making sure that nothing in it runs when torch-fidelity loads it."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise TrainerError(f"{path} is not a file of weights: {error}") from error
