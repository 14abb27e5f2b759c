"""Models on disk: numbered immutable versions, each published by one rename, and a pointer to the current.

ROOT/NAME/versions/0007/{model.json, weights.safetensors, ...}      ROOT/NAME/current
ROOT/.staging/                                                      what is not published yet
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import CheckpointError, ModelNotFoundError
from models.spec import NAME_PATTERN, ModelSpec
from models.version import ModelVersion, open_version, seal

_NAME = re.compile(NAME_PATTERN)
_NUMBER = re.compile(r"[0-9]{4,9}")
_STAGING = ".staging"
_LOCK = "lock"


class Registry:
    """A directory of models. Any number of processes may read and publish at once; POSIX file systems only.

    Args:
        root: the directory; it need not exist before the first model is published.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Return the names of all models with a version, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if self.versions(entry.name))

    def versions(self, name: str) -> list[int]:
        """Return the numbers of a model's versions, oldest first; none for an unknown model."""
        directory = self.root / name / "versions"
        if not _NAME.fullmatch(name) or not directory.is_dir():
            return []
        return sorted(int(entry.name) for entry in directory.iterdir() if _NUMBER.fullmatch(entry.name))

    def current(self, name: str) -> int | None:
        """Return the version that `point` chose last, None if it never did.

        Raises:
            CheckpointError: the pointer is damaged.
        """
        pointer = self.root / name / "current"
        if not _NAME.fullmatch(name) or not pointer.is_file():
            return None
        text = pointer.read_text().strip()
        if not _NUMBER.fullmatch(text):
            raise CheckpointError(f"{pointer} does not hold a version number")
        return int(text)

    def pointer_stamp(self, name: str) -> tuple[int, int] | None:
        """Return what differs after every `point`, the pointer's inode and time in ns; None: no pointer."""
        try:
            status = (self.root / name / "current").stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def open(self, name: str, version: int | None = None) -> ModelVersion:
        """Open a version, by default the current one.

        Raises:
            ModelNotFoundError: no such model or version, or no version is current.
            CheckpointError: its `model.json` is not valid.
        """
        versions = self.versions(name)
        if not versions:
            raise ModelNotFoundError(
                f"{self.root} has no model {name!r}; it has {', '.join(self.names()) or 'none'}"
            )
        number = self.current(name) if version is None else version
        if number is None:
            raise ModelNotFoundError(f"no version of {name} is current; it has {versions}")
        if number not in versions:
            raise ModelNotFoundError(f"{name} has no version {number}; it has {versions}")
        return open_version(self._directory(name, number), number)

    def publish(self, build: Callable[[Path], ModelSpec], *, point: bool = False) -> ModelVersion:
        """Publish a new version. It appears whole or not at all, whatever happens meanwhile.

        Args:
            build: writes the version's files into the empty directory that it is given and returns the spec,
                whose checksums are filled in here.
            point: make the new version the current one.

        Returns:
            The new version, numbered after the highest.

        Raises:
            UnsafeCheckpointError: `build` left a link.
            CheckpointError: the spec names a file that is not there.
        """
        with self._staging() as staging:
            name = seal(staging, build(staging)).spec.name
            for path in [*staging.rglob("*"), staging]:
                _sync(path)
            number = self._move(staging, name)
        if point:
            self.point(name, number)
        return open_version(self._directory(name, number), number)

    def point(self, name: str, version: int) -> None:
        """Make a version the current one, atomically.

        Raises:
            ModelNotFoundError: there is no such version.
        """
        self.open(name, version)
        with self._staging() as staging:
            pointer = staging / "current"
            pointer.write_text(f"{version:04d}\n")
            _sync(pointer)
            pointer.replace(self.root / name / "current")
        _sync(self.root / name)

    def verify(self, name: str, version: int | None = None) -> ModelVersion:
        """Compare every file of a version with its recorded size and SHA-256, and return the version.

        Raises:
            ModelNotFoundError: no such model or version.
            CheckpointError: a file is missing, changed or not recorded.
        """
        opened = self.open(name, version)
        opened.verify()
        return opened

    def _directory(self, name: str, number: int) -> Path:
        return self.root / name / "versions" / f"{number:04d}"

    def _move(self, staging: Path, name: str) -> int:
        """Rename `staging` to the next free number; a directory with files is never replaced by a rename."""
        versions = self.root / name / "versions"
        versions.mkdir(parents=True, exist_ok=True)
        while True:
            number = max(self.versions(name), default=0) + 1
            try:
                staging.rename(self._directory(name, number))
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                continue  # Another publisher took the number.
            for directory in (versions, versions.parent, self.root):
                _sync(directory)
            return number

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """Lend an empty directory on the registry's own file system.

        Whoever stages holds a shared lock, which the kernel drops with the process. So whoever gets the lock
        alone knows that all it finds there was left by processes that died.
        """
        parent = self.root / _STAGING
        parent.mkdir(parents=True, exist_ok=True)
        with (parent / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                for leftover in parent.iterdir():
                    if leftover.name != _LOCK:
                        shutil.rmtree(leftover)
            fcntl.flock(lock, fcntl.LOCK_SH)
            directory = parent / uuid.uuid4().hex
            directory.mkdir()
            try:
                yield directory
            finally:
                shutil.rmtree(directory, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
