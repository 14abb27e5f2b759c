"""Writing the zip layout that `archive` reads."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt

from trainer.data.archive import INDEX, ArchiveIndex
from trainer.data.replacing import replacing
from trainer.data.source import Indices

_FOLDER = 1000
"""Images in one folder of the archive."""


class ArchiveWriter:
    """Adds members in order. The same members give the same bytes: no dates, nothing of the machine.

    Args:
        archive: open for writing, empty.
    """

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive
        self._labels: list[tuple[str, int]] = []

    @property
    def labels(self) -> Indices:
        """Of the members so far, (N,) int64."""
        return np.array([label for _, label in self._labels], np.int64)

    def add_png(self, content: bytes, label: int) -> None:
        """Add an image."""
        self._add("img{:08d}.png", content, label)

    def add_moments(self, moments: npt.NDArray[np.float32], label: int) -> None:
        """Add a latent's means and deviations, (2 C, H, W)."""
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(moments), allow_pickle=False)
        self._add("img-mean-std-{:08d}.npy", buffer.getvalue(), label)

    def write_index(self, class_names: tuple[str, ...] | None) -> None:
        """Add `dataset.json`; None: the images have no labels."""
        index = (
            ArchiveIndex()
            if class_names is None
            else ArchiveIndex(labels=self._labels, class_names=class_names)
        )
        self._write(INDEX, json.dumps(index.model_dump(), ensure_ascii=False).encode())

    def _add(self, pattern: str, content: bytes, label: int) -> None:
        number = len(self._labels)
        name = f"{number // _FOLDER:05d}/{pattern.format(number)}"
        self._write(name, content)
        self._labels.append((name, label))

    def _write(self, name: str, content: bytes) -> None:
        member = ZipInfo(name)
        member.create_system = 3  # Unix, wherever it is written
        member.external_attr = 0o644 << 16
        self._archive.writestr(member, content)


@contextmanager
def writing(path: Path) -> Iterator[ArchiveWriter]:
    """Give a writer of an archive that appears at `path` where the block ends well, and else does not.

    Raises:
        DataError: it cannot be written; what was at `path` is intact.
    """
    with replacing(path) as file, ZipFile(file, "w") as archive:
        yield ArchiveWriter(archive)
