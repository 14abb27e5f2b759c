"""A run's folder, worked on by one run at a time."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import TrainerError

_UNFINISHED = re.compile(r"\..+\.[0-9]+")


@contextmanager
def occupied(directory: Path) -> Iterator[None]:
    """Make `directory` and keep others out of it; take away the unfinished files of killed processes.

    The kernel drops the lock with the process that holds it, however it ends.

    Raises:
        TrainerError: another process works there, or the folder cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("w")
    except OSError as error:
        raise TrainerError(f"cannot write to {directory}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainerError(f"another process works on {directory}; let it end, or end it") from None
        for path in directory.rglob(".*"):
            if _UNFINISHED.fullmatch(path.name) and path.is_file():
                path.unlink()
        yield
