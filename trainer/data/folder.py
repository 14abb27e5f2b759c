"""Images in folders: a folder a class."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from trainer.data.decoding import read_file
from trainer.data.originals import Original
from trainer.errors import DataError


class FolderImages:
    """All files below the folders in `root`, each of which is a class; hidden files are passed over.

    Args:
        root: holds the class folders, and no image of its own.

    Attributes:
        class_names: of the folders, sorted; index = label.

    Raises:
        DataError: there is no such folder, it holds no class folder, a file of no class, an empty class, or a
            link to a folder or out of `root`.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"there is no folder {root}")
        visible = [path for path in sorted(root.iterdir()) if not path.name.startswith(".")]
        folders = [path for path in visible if path.is_dir()]
        if not folders:
            raise DataError(
                f"{root} has no class folders; move the images of each class into a folder of its own"
            )
        loose = [path for path in visible if not path.is_dir()]
        if loose:
            raise DataError(f"{loose[0]} is of no class; move it into a class folder, or away")
        self.class_names = tuple(folder.name for folder in folders)
        self._files = [
            (path, label) for label, folder in enumerate(folders) for path in _files(folder, root.resolve())
        ]

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Original]:
        for path, label in self._files:
            yield Original(str(path), label, partial(read_file, path))


def _files(folder: Path, root: Path) -> list[Path]:
    files = []
    for path in sorted([folder, *folder.rglob("*")]):
        if path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(root)):
            raise DataError(
                f"{path} is a link to a folder or out of {root}; put the files themselves there (`cp -rL`)"
            )
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            files.append(path)
    if not files:
        raise DataError(f"the class folder {folder} is empty; add images or remove it")
    return files
