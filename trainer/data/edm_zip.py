"""Images in a zip archive of EDM's dataset tool."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from trainer.data.archive import Archive
from trainer.data.decoding import BadImageError, decode_array, decode_image
from trainer.data.pixels import Pixels, network_shape, to_network
from trainer.data.source import Indices


class ZipImages:
    """Reads images where they lie. Processes may share it by fork, or be sent it.

    Args:
        archive: its members are PNG, JPEG, WebP, BMP, or .npy of uint8 (3, H, W).
        fold: side of the square of pixels that `read` folds into channels.

    Attributes:
        archive: where the images lie.
        fold: as given.

    Raises:
        BadImageError: the first image cannot be read.
        DataError: the images cannot be folded.
    """

    def __init__(self, archive: Archive, fold: int = 1) -> None:
        self.archive = archive
        self.fold = fold
        self._height, self._width, _ = decode_pixels(archive.content(0), archive.name(0)).shape
        self.shape: tuple[int, int, int] = network_shape(self._height, self._width, fold)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Index = label."""
        return self.archive.class_names

    @property
    def labels(self) -> Indices:
        """(N,) int64."""
        return self.archive.labels

    def __len__(self) -> int:
        return len(self.archive)

    def pixels(self, indices: Indices) -> Pixels:
        """Return the images as they are stored, (B, H, W, 3) uint8.

        Raises:
            BadImageError: an image is damaged, or not of the first one's size; names it.
        """
        return np.stack([self._pixels(int(index)) for index in indices])

    def read(self, indices: Indices) -> Tensor:
        """Return the images (B, C, H, W), float32 in [-1, 1], folded.

        Raises:
            BadImageError: see `pixels`.
        """
        return to_network(self.pixels(indices), self.fold)

    def _pixels(self, index: int) -> Pixels:
        name = self.archive.name(index)
        image = decode_pixels(self.archive.content(index), name)
        height, width, _ = image.shape
        if (height, width) != (self._height, self._width):
            raise BadImageError(
                f"{name} has {width} x {height} pixels, the first image {self._width} x {self._height}; "
                "make them alike with the option --size of `python -m trainer data`"
            )
        return image


def decode_pixels(content: bytes, name: str) -> Pixels:
    """Decode a member to (H, W, 3) uint8.

    Raises:
        BadImageError: it is damaged, or an array of another kind.
    """
    if not name.endswith(".npy"):
        return np.asarray(decode_image(content, name))
    array = decode_array(content, name)
    if array.dtype != np.uint8 or array.ndim != 3 or len(array) != 3:
        raise BadImageError(f"{name} must be uint8 (3, H, W), not {array.dtype} {array.shape}")
    return array.transpose(1, 2, 0)
