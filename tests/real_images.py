"""Small sets of images that tell classes by their brightness, and pixels as features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from fake_engine import FakeEngine, FakeRow

from trainer.data.arrays import ArrayImages
from trainer.data.emoji import HELD_OUT_STYLE, TRAINING_STYLES
from trainer.evaluation.images import RealImages

CLASSES, SIZE = 5, 4
CLASS_NAMES = tuple("abcde")


def painting(label: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 20, (SIZE, SIZE, 3))
    return (40 * label + noise).astype(np.uint8)


def paintings(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % CLASSES
    return np.stack([painting(label, seed + i) for i, label in enumerate(labels)]), labels


def real(count: int = 60, seed: int = 5000) -> RealImages:
    images, labels = paintings(count, seed)
    return RealImages(ArrayImages(images, labels, CLASS_NAMES), "paintings")


def styled(styles: Sequence[str] = (*TRAINING_STYLES, HELD_OUT_STYLE)) -> ArrayImages:
    """Return a set in the layout of the emoji, one image a class and style."""
    pairs = [(style, label) for style in range(len(styles)) for label in range(CLASSES)]
    return ArrayImages(
        images=np.stack([painting(label, 1000 + 10 * style + label) for style, label in pairs]),
        labels=np.array([label for _, label in pairs]),
        class_names=CLASS_NAMES,
        style=np.array([style for style, _ in pairs]),
        style_names=tuple(styles),
    )


class Pixels:
    """Pixels as features."""

    name = "pixels"

    def __init__(self, device: object = None) -> None:
        self.device = device

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, : SIZE * SIZE * 3].astype(np.float32)


@dataclass(eq=False)
class Painter(FakeEngine):
    """Paints its class's brightness; `wrong` tells what it takes a class for."""

    wrong: dict[int, int] = field(default_factory=dict)

    def image(self, row: FakeRow) -> np.ndarray:
        super().image(row)
        label = row.request.class_id or 0
        return painting(self.wrong.get(label, label), row.request.seed)
