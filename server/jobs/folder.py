"""A job's files."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from server.errors import StorageError
from server.jobs.job import Chunk, Job
from server.jobs.plan import ResultFormat

FOLDERS = "jobs"


class DamagedChunkError(Exception):
    """A chunk's file is not what was written, or it is gone."""


class JobFolder:
    """Where one job's images lie: chunks while they are made, one result at the end."""

    def __init__(self, path: Path) -> None:
        """Make no folder before something is written."""
        self.path = path
        self._chunks = path / "chunks"

    @classmethod
    def of(cls, directory: Path, job: Job) -> Self:
        """Return a job's folder in the directory of all jobs."""
        return cls(directory / FOLDERS / job.id)

    def result(self, result_format: ResultFormat) -> Path:
        """Return where the result is, or is going to be."""
        return self.path / f"result.{result_format}"

    def write_chunk(self, start: int, content: bytes, count: int) -> Chunk:
        """Write `count` images from place `start` on; they appear whole or not at all.

        Raises:
            StorageError: they cannot be written.
        """
        with replacing(self._chunk(start)) as file:
            file.write(content)
        return Chunk(start, count, hashlib.sha256(content).hexdigest())

    def read_chunk(self, chunk: Chunk) -> bytes:
        """Return what `write_chunk` wrote.

        Raises:
            DamagedChunkError: it is not there any more, or something else is.
        """
        try:
            content = self._chunk(chunk.start).read_bytes()
        except OSError as error:
            raise DamagedChunkError from error
        if hashlib.sha256(content).hexdigest() != chunk.sha256:
            raise DamagedChunkError
        return content

    def holds(self, chunk: Chunk) -> bool:
        """Return whether `read_chunk` would."""
        try:
            self.read_chunk(chunk)
        except DamagedChunkError:
            return False
        return True

    def remove_chunks(self) -> None:
        """Remove all chunks, if there are any."""
        shutil.rmtree(self._chunks, ignore_errors=True)

    def remove(self) -> None:
        """Remove everything, if there is anything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _chunk(self, start: int) -> Path:
        return self._chunks / f"{start:08d}"


def all_folders(directory: Path) -> list[Path]:
    """Return the folders of all jobs in a directory, known or left behind."""
    folders = directory / FOLDERS
    return list(folders.iterdir()) if folders.exists() else []


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file beside `path` to write; where the block ends well it is synced and takes `path`'s place.

    Raises:
        StorageError: it cannot be written.
    """
    aside = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else f"images cannot be written: {error.strerror}"
        raise StorageError(why) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
