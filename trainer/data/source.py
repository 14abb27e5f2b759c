"""What every set of training images is to those who train on it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

Indices = npt.NDArray[np.int64]


class TrainingImages(Protocol):
    """Labelled images, read as the network sees them; every class has at least one.

    Attributes:
        class_names: index = label.
        labels: (N,) int64, each below the number of class names.
        shape: (C, H, W) of one image.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def labels(self) -> Indices: ...  # noqa: D102

    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def read(self, indices: Indices) -> Tensor:
        """Return the images (B, C, H, W), float32, RGB in [-1, 1] or latents of deviation about 0.5.

        The same indices give the same bits.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        ...
