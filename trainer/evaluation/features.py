"""Features of images: what every figure of evaluation is computed on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from engines.pixels import Pixels
from trainer.errors import StatisticsError

Features = npt.NDArray[np.float32]
"""(N, features): one row an image."""

Labels = npt.NDArray[np.integer]
"""(N,): the class of each image."""

ImageBatch: TypeAlias = tuple[Pixels, Labels | None]
"""Images (N, H, W, 3), uint8 RGB, and their classes, None where they have none."""

BATCH = 32
"""Images that an extractor gets at once."""

_ROWS = 1024
"""Features handled at once: enough that adding up their covariance costs little beside extracting them."""


class FeatureExtractor(Protocol):
    """Turns images into features; figures of different extractors are not comparable.

    Attributes:
        name: names the extractor in published figures.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    def __call__(self, images: Pixels) -> Features:
        """Return the features of one batch, (N, H, W, 3) uint8 RGB."""
        ...


def split(images: Pixels, labels: Labels | None) -> Iterator[ImageBatch]:
    """Yield (N, H, W, 3) images and their labels, (N,) if there are any, `BATCH` at a time."""
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        yield images[part], None if labels is None else labels[part]


def feature_chunks(
    extractor: FeatureExtractor,
    batches: Iterable[ImageBatch],
    progress: Progress,
    total: int | None = None,
) -> Iterator[tuple[Features, Labels | None]]:
    """Yield the features of `batches` with their labels, in order, about a thousand rows at a time.

    Args:
        extractor: gives the features.
        batches: images, as many at once as the extractor is to get at once.
        progress: where to show how far it is.
        total: number of images, where it is known.

    Raises:
        StatisticsError: some batches have labels and others none.
    """
    task = progress.add_task("features", total=total)
    rows: list[Features] = []
    classes: list[Labels] = []
    for images, labels in batches:
        rows.append(extractor(images))
        if labels is not None:
            classes.append(labels)
        progress.advance(task, len(images))
        if sum(map(len, rows)) >= _ROWS:
            yield _joined(rows, classes)
            rows, classes = [], []
    if rows:
        yield _joined(rows, classes)


def _joined(rows: list[Features], classes: list[Labels]) -> tuple[Features, Labels | None]:
    if classes and len(classes) != len(rows):
        raise StatisticsError("some of the images have labels and others none")
    return np.concatenate(rows), np.concatenate(classes) if classes else None
