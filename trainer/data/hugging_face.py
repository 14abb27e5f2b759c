"""Images of the Hugging Face hub, or in a local folder that `datasets` reads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import numpy as np

from trainer.data.classes import check_labels, numbered_classes
from trainer.data.decoding import BadImageError, read_file
from trainer.data.originals import Original
from trainer.data.source import Indices
from trainer.errors import DataError


class HuggingFaceImages:
    """One split of a set, in its own order. Class names are the set's, else its texts sorted, else numbers.

    Args:
        name: of a set on the hub, or the path of a folder: image files, parquet, or of `save_to_disk`.
        split: e.g. `train`.
        image_column: holds images.
        label_column: holds class numbers or texts.

    Attributes:
        class_names: index = label.

    Raises:
        DataError: the set cannot be had, or lacks the split or a column, or a label is missing or no class.
    """

    def __init__(self, name: str, split: str, image_column: str, label_column: str) -> None:
        rows = _load(name, split)
        for column in (image_column, label_column):
            if column not in rows.column_names:
                raise DataError(
                    f"{name} has no column {column!r}; it has {', '.join(rows.column_names)}: "
                    "choose with --image-column and --label-column"
                )
        if not isinstance(rows.features[image_column], datasets.Image):
            raise DataError(
                f"the column {image_column!r} of {name} holds no images; choose with --image-column"
            )
        self._name = f"{name}[{split}]"
        self._labels, self.class_names = self._classes(rows, label_column)
        # Undecoded, so that a damaged image is found as in every other source, and named.
        raw = datasets.Image(decode=False)
        self._images = rows.select_columns([image_column]).cast_column(image_column, raw)
        self._column = image_column

    def __len__(self) -> int:
        return len(self._labels)

    def __iter__(self) -> Iterator[Original]:
        for index, (row, label) in enumerate(zip(self._images, self._labels, strict=True)):
            name = self._row(index)
            yield Original(name, int(label), partial(_content, row[self._column], name))

    def _row(self, index: int) -> str:
        return f"{self._name} row {index}"

    def _classes(self, rows: Any, column: str) -> tuple[Indices, tuple[str, ...]]:
        values = list(rows[column])
        missing = next((index for index, value in enumerate(values) if value is None), None)
        if missing is not None:
            raise DataError(f"{self._row(missing)} has no label in the column {column!r}; give it one")
        if all(isinstance(value, str) for value in values):
            names = tuple(sorted(set(values)))
            places = {name: label for label, name in enumerate(names)}
            return np.array([places[value] for value in values], np.int64), names
        if not all(isinstance(value, int) for value in values):
            raise DataError(
                f"the column {column!r} of {self._name} holds no classes; choose with --label-column"
            )
        labels = np.array(values, np.int64)
        names = tuple(getattr(rows.features[column], "names", None) or numbered_classes(labels, self._row))
        check_labels(labels, len(names), self._row)
        return labels, names


def _load(name: str, split: str) -> Any:
    try:
        if not (Path(name) / "state.json").exists() and not (Path(name) / "dataset_dict.json").exists():
            return datasets.load_dataset(name, split=split)
        saved = datasets.load_from_disk(name)
    except Exception as error:  # The hub's client lets through the errors of its HTTP library.
        raise DataError(
            f"cannot load the split {split!r} of {name}: {error}. Where there is no network, download "
            "the set elsewhere and give the path of its folder."
        ) from error
    if isinstance(saved, datasets.Dataset):
        return saved
    if split not in saved:
        raise DataError(f"{name} has no split {split!r}; it has {', '.join(saved)}")
    return saved[split]


def _content(image: dict[str, Any] | None, name: str) -> bytes:
    if image is None:
        raise BadImageError(f"{name} has no image; leave the row out")
    if image["bytes"] is not None:
        return bytes(image["bytes"])
    return read_file(Path(image["path"]))
