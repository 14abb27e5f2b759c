"""Engines are made beside the engine thread, so that loading one holds up no call of another."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from engines.base import Engine
from engines.heap import give_back_freed_memory
from engines.settings import EngineSettings
from models.version import ModelVersion
from server.hosting.warmup import EngineLoader, warm_up

T = TypeVar("T")


class Loader:
    """Loads and checks engines, each on a thread of its own that ends with it.

    The threads are daemons, so that loading never keeps the process alive.
    """

    def __init__(self, load: EngineLoader, settings: EngineSettings) -> None:
        """Make engines by `load`, which may take long and is called on a loader's thread."""
        self._load = load
        self._settings = settings

    async def load(self, version: ModelVersion) -> tuple[Engine[Any], tuple[int, ...]]:
        """Return a version's engine, its golden image checked, and the shape of its images, (H, W, 3).

        Raises:
            Exception: what `warm_up` raises.
        """
        return await _in_thread(partial(warm_up, version, self._load, self._settings))

    async def free(self) -> None:
        """Give the memory of engines that are gone back to the system."""
        await _in_thread(give_back_freed_memory)

    async def clear(self) -> None:
        """Free what a failed load left behind: its error holds frames, and these in circles the engine."""
        await _in_thread(_collect)


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    threading.Thread(target=_run, args=(work, future), name="loader", daemon=True).start()
    return asyncio.wrap_future(future)


def _run(work: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
        del future  # the error holds this frame


def _collect() -> None:
    gc.collect()
    give_back_freed_memory()
