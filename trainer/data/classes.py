"""What labels and classes must be to be trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from trainer.data.source import Indices
from trainer.errors import DataError


def check_labels(labels: Indices, classes: int, name: Callable[[int], str]) -> None:
    """Refuse labels that are no class.

    Args:
        labels: (N,) int64.
        classes: how many there are.
        name: says which image has a place in `labels`.

    Raises:
        DataError: a label is below 0, or not below `classes`; names its image.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{name(first)} has label {labels[first]}, but labels must lie in 0 to {classes - 1} "
            f"({len(wrong)} do not); correct them or name the missing classes"
        )


def numbered_classes(labels: Indices, name: Callable[[int], str]) -> tuple[str, ...]:
    """Name classes that have no names by their numbers, `0` to the highest label.

    Raises:
        DataError: a label is below 0, or so high that some class must be empty.
    """
    check_labels(labels, len(labels), name)
    return tuple(str(number) for number in range(int(labels.max(initial=-1)) + 1))


def require_every_class(labels: Indices, class_names: Sequence[str], where: object) -> None:
    """Refuse a set in which a class has no image: a model cannot learn it, nor can it be judged.

    Raises:
        DataError: there is no image at all, or a class has none; names it.
    """
    if not len(labels):
        raise DataError(f"{where} holds no image")
    empty = np.flatnonzero(np.bincount(labels, minlength=len(class_names)) == 0)
    if len(empty):
        raise DataError(
            f"{where}: {len(empty)} classes have no image, first {empty[0]} ({class_names[empty[0]]}); "
            "add images or remove the class"
        )
