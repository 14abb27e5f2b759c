"""Images in memory, as an .npz holds them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile
from torch import Tensor

from trainer.data.classes import check_labels
from trainer.data.pixels import Pixels, network_shape, to_network
from trainer.data.replacing import replacing
from trainer.data.source import Indices
from trainer.errors import DataError


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Labelled images in memory, some sets with the style that each is drawn in.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        labels: (N,) int64, index into `class_names`.
        class_names: index = label.
        style: (N,) int64, index into `style_names`; None: the set knows no styles.
        style_names: text.
        fold: side of the square of pixels that `read` folds into channels.

    Raises:
        DataError: an array is of another type or length, or a label is no class.
    """

    images: Pixels
    labels: Indices
    class_names: tuple[str, ...]
    style: Indices | None = None
    style_names: tuple[str, ...] = ()
    fold: int = 1

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise DataError(f"images must be uint8 (N, H, W, 3), not {self.images.dtype} {self.images.shape}")
        for name, values in (("labels", self.labels), ("style", self.style)):
            if values is not None and values.shape != (len(self.images),):
                raise DataError(
                    f"{name} must be one number an image, ({len(self.images)},), not {values.shape}"
                )
        check_labels(self.labels, len(self.class_names), lambda index: f"image {index}")
        if self.style is not None:
            check_labels(self.style, len(self.style_names), lambda index: f"the style of image {index}")

    @classmethod
    def load(cls, path: Path, fold: int = 1) -> Self:
        """Read an .npz with `images`, `labels`, `class_names`, and `style` and `style_names` if it has them.

        Raises:
            DataError: the file is unreadable, lacks an array, or holds one that is not as it must be.
        """
        content = _read(path)
        missing = {"images", "labels", "class_names"} - content.keys()
        if missing:
            raise DataError(f"{path} lacks the arrays {sorted(missing)}")
        styled = {"style", "style_names"} <= content.keys()
        try:
            return cls(
                images=content["images"],
                labels=_whole_numbers(content["labels"], "labels"),
                class_names=_text(content["class_names"]),
                style=_whole_numbers(content["style"], "style") if styled else None,
                style_names=_text(content["style_names"]) if styled else (),
                fold=fold,
            )
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write an .npz, and the folders above it; it appears whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        arrays: dict[str, npt.NDArray[Any]] = {
            "images": self.images,
            "labels": self.labels,
            "class_names": np.array(self.class_names),
        }
        if self.style is not None:
            arrays |= {"style": self.style, "style_names": np.array(self.style_names)}
        with replacing(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image as `read` gives it."""
        return network_shape(self.images.shape[1], self.images.shape[2], self.fold)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Indices) -> Tensor:
        """Return the images (B, C, H, W), float32 in [-1, 1], folded."""
        return to_network(self.images[indices], self.fold)

    def of_styles(self, *names: str) -> Self:
        """Return the images of these styles only; the classes stay.

        Raises:
            DataError: one is unknown, or the set has no styles.
        """
        if self.style is None:
            raise DataError("the set has no styles to choose from")
        unknown = sorted(set(names) - set(self.style_names))
        if unknown:
            raise DataError(f"unknown styles {unknown}; known: {', '.join(self.style_names)}")
        keep = np.isin(self.style, [self.style_names.index(name) for name in names])
        return replace(self, images=self.images[keep], labels=self.labels[keep], style=self.style[keep])


def _read(path: Path) -> Mapping[str, npt.NDArray[Any]]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise ValueError("it is not an .npz")
        with archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(f"cannot read the data set {path}: {error}") from error


def _whole_numbers(array: npt.NDArray[Any], name: str) -> Indices:
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{name} must be whole numbers, not {array.dtype}")
    return array.astype(np.int64)


def _text(array: npt.NDArray[Any]) -> tuple[str, ...]:
    return tuple(str(item) for item in array)
