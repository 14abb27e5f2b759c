"""The zip layout of EDM's dataset tool: one member an image, and `dataset.json` with their labels.

    00000/img00000000.png      00000/img00000001.png      ...      dataset.json

`dataset.json` holds `{"labels": [["00000/img00000000.png", 5], ...]}`, or null in place of the list. This
project adds `class_names`, a list whose index is the label; other readers of the layout pass over it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import BaseModel, StrictInt, ValidationError

from trainer.data.classes import check_labels, numbered_classes
from trainer.data.decoding import BadImageError
from trainer.data.source import Indices
from trainer.data.zip_reader import ZipReader
from trainer.errors import DataError

INDEX = "dataset.json"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".npy")
_UNLABELLED = ("all",)


class ArchiveIndex(BaseModel):
    """The content of `dataset.json`.

    Attributes:
        labels: member and label; None: the images have none.
        class_names: index = label; None: classes are called by their numbers.
    """

    labels: list[tuple[str, StrictInt]] | None = None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Archive:
    """Labelled members of a zip archive, in the order of their names.

    Attributes:
        reader: gives their content.
        members: their names.
        labels: (N,) int64.
        class_names: index = label. A set without labels has one class, `all`.
        labelled: whether the archive gives labels.
    """

    reader: ZipReader
    members: tuple[str, ...]
    labels: Indices
    class_names: tuple[str, ...]
    labelled: bool

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the archive's list of members and its `dataset.json`.

        Raises:
            DataError: the archive cannot be read, `dataset.json` is not valid, an image has no label or one
                that is no class, or a label has no image.
        """
        reader = ZipReader(path)
        members = tuple(sorted(name for name in reader.names if name.lower().endswith(_SUFFIXES)))
        if not members:
            raise DataError(f"{path} holds no image")
        index = _read_index(reader)
        if index.labels is None:
            return cls(reader, members, np.zeros(len(members), np.int64), _UNLABELLED, labelled=False)
        labels = _labels(index.labels, members, path)

        def name(place: int) -> str:
            return f"{path}: {members[place]}"

        if index.class_names is None:
            return cls(reader, members, labels, numbered_classes(labels, name), labelled=True)
        check_labels(labels, len(index.class_names), name)
        return cls(reader, members, labels, index.class_names, labelled=True)

    def __len__(self) -> int:
        return len(self.members)

    def name(self, index: int) -> str:
        """Say which member an index is, archive included."""
        return f"{self.reader.path}: {self.members[index]}"

    def content(self, index: int) -> bytes:
        """Return a member's bytes; raises BadImageError where it is damaged or too big."""
        try:
            return self.reader.read(self.members[index])
        except DataError as error:
            raise BadImageError(str(error)) from error

    def keep(self, indices: Indices) -> Self:
        """Return the archive with these members only; the classes stay."""
        members = tuple(self.members[index] for index in indices)
        return replace(self, members=members, labels=self.labels[indices])

    def digest(self) -> str:
        """Return a SHA-256 over names, recorded checksums and labels: it tells this set from another."""
        digest = hashlib.sha256()
        for name, label in zip(self.members, self.labels, strict=True):
            digest.update(f"{name} {self.reader.checksum(name)} {label}\n".encode())
        return digest.hexdigest()


def _read_index(reader: ZipReader) -> ArchiveIndex:
    if INDEX not in reader.names:
        return ArchiveIndex()
    try:
        return ArchiveIndex.model_validate_json(reader.read(INDEX))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise DataError(f"{reader.path}: {INDEX} is not valid: {where}: {fault['msg']}") from error


def _labels(pairs: list[tuple[str, int]], members: tuple[str, ...], path: Path) -> Indices:
    by_name = dict(pairs)
    strange = by_name.keys() - set(members)
    if strange:
        raise DataError(
            f"{path}: {INDEX} labels {min(strange)}, which is not in the archive; make the archive again"
        )
    missing = [name for name in members if name not in by_name]
    if missing:
        raise DataError(f"{path}: {missing[0]} has no label in {INDEX} ({len(missing)} have none); add them")
    try:
        return np.array([by_name[name] for name in members], np.int64)
    except OverflowError as error:
        raise DataError(f"{path}: a label in {INDEX} is no class number: {error}") from error
