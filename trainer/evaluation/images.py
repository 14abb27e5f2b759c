"""Real images, as 8-bit pixels, that generated ones are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.nn import functional as F

from engines.pixels import to_pixels
from trainer.data.arrays import ArrayImages
from trainer.data.config import DataConfig
from trainer.data.emoji import HELD_OUT_STYLE, TRAINING_STYLES
from trainer.data.open import open_images
from trainer.data.source import TrainingImages
from trainer.errors import DataError
from trainer.evaluation.features import BATCH, ImageBatch


@dataclass(frozen=True)
class RealImages:
    """RGB images that are read batch by batch, so that a set may be larger than the memory.

    Attributes:
        images: in [-1, 1], squares of pixels perhaps folded into channels.
        source: where they come from, for the record.

    Raises:
        DataError: they are latents.
    """

    images: TrainingImages
    source: str

    def __post_init__(self) -> None:
        if not self._fold:
            raise DataError(
                f"{self.source} holds {self.images.shape[0]} channels, which are no RGB pixels: "
                "judge by reference statistics of the images that it was made from"
            )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.images.class_names)

    @property
    def _fold(self) -> int:
        """The side of the folded squares, 0 for what is no RGB image."""
        fold = round((self.images.shape[0] / 3) ** 0.5)
        return fold if 3 * fold**2 == self.images.shape[0] else 0

    def __len__(self) -> int:
        return len(self.images)

    def batches(self) -> Iterator[ImageBatch]:
        """Yield all images and their labels in order, `BATCH` at a time.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        for start in range(0, len(self), BATCH):
            part = np.arange(start, min(start + BATCH, len(self)))
            yield to_pixels(F.pixel_shuffle(self.images.read(part), self._fold)), self.images.labels[part]


def open_real(path: Path) -> tuple[RealImages, RealImages | None]:
    """Open a file of real images; an emoji set is split into what models learn from and what they do not.

    Returns:
        The images to compare with, and the held-out style of an emoji set.

    Raises:
        DataError: the file is not as it must be, or a style is missing.
    """
    images = open_images(DataConfig(path=path))
    if not isinstance(images, ArrayImages) or not images.style_names:
        return RealImages(images, str(path)), None
    learnt = RealImages(images.of_styles(*TRAINING_STYLES), f"{path} ({', '.join(TRAINING_STYLES)})")
    return learnt, RealImages(images.of_styles(HELD_OUT_STYLE), f"{path} ({HELD_OUT_STYLE})")
