"""The database of jobs beside the event loop."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from server.jobs.store import JobStore
from server.jobs.threads import finish_on

T = TypeVar("T")


class StoreThread:
    """A `JobStore` on a thread of its own, one piece of work after another."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet."""
        self._path = path
        self._store: JobStore | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs-store")

    async def call(self, work: Callable[[JobStore], T]) -> T:
        """Do `work` with the database, which is made if there is none.

        Raises:
            StorageError: the database cannot be used.
        """
        return await finish_on(self._thread, lambda: work(self._opened()))

    async def close(self) -> None:
        """Close the database and end the thread."""
        if self._store is not None:
            await finish_on(self._thread, self._store.close)
        self._thread.shutdown()

    @property
    def is_open(self) -> bool:
        """Whether the database is open, and so this process' own."""
        return self._store is not None

    def _opened(self) -> JobStore:
        if self._store is None:
            self._store = JobStore.open(self._path)
        return self._store
