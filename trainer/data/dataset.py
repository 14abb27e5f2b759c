"""Labelled images in memory, and the order in which training sees them."""

from __future__ import annotations

from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.config import DataConfig
from trainer.errors import DataError


@dataclass(frozen=True)
class LabelledImages:
    """Images in [-1, 1] as the network sees them.

    Attributes:
        images: (N, C, H, W) float32, folded.
        labels: (N,) int64.
        class_names: index = label.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    @classmethod
    def load(cls, config: DataConfig) -> LabelledImages:
        """Read the .npz that `config` names.

        Raises:
            DataError: file, arrays, styles or labels are not as they must be.
        """
        try:
            with np.load(config.path, allow_pickle=False) as arrays:
                content = {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, BadZipFile) as error:
            raise DataError(f"cannot read the data set {config.path}: {error}") from error
        missing = {"images", "labels", "class_names"} - content.keys()
        if missing:
            raise DataError(f"{config.path} lacks the arrays {sorted(missing)}")
        images, labels = content["images"], content["labels"].astype(np.int64)
        names = tuple(str(name) for name in content["class_names"])
        if config.styles:
            keep = _style_mask(content, config)
            images, labels = images[keep], labels[keep]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise DataError(f"images must be uint8 (N, H, W, 3), not {images.dtype} {images.shape}")
        if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(names):
            raise DataError(f"labels must lie in 0 to {len(names) - 1}")
        empty = sorted(set(range(len(names))) - set(labels.tolist()))
        if empty:
            raise DataError(f"{len(empty)} classes have no image, first {empty[0]} ({names[empty[0]]})")
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        return cls(F.pixel_unshuffle(pixels, config.fold), torch.from_numpy(labels), names)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return the images and one-hot labels of a step: a pure function of its arguments.

        Every image comes once in each pass; passes are shuffled by `seed` and their number.
        """
        positions = np.arange(step * size, (step + 1) * size)
        passes, places = np.divmod(positions, len(self))
        order = np.empty(size, dtype=np.int64)
        for number in np.unique(passes):
            shuffled = np.random.default_rng((seed, int(number))).permutation(len(self))
            order[passes == number] = shuffled[places[passes == number]]
        chosen = torch.from_numpy(order)
        return self.images[chosen], F.one_hot(self.labels[chosen], len(self.class_names)).float()


def _style_mask(content: dict[str, np.ndarray], config: DataConfig) -> np.ndarray:
    if not {"style", "style_names"} <= content.keys():
        raise DataError(f"{config.path} has no styles to choose from")
    known = [str(name) for name in content["style_names"]]
    unknown = sorted(set(config.styles) - set(known))
    if unknown:
        raise DataError(f"unknown styles {unknown}; {config.path} has {known}")
    return np.isin(content["style"], [known.index(style) for style in config.styles])
