"""Ending what a task does from outside it, for a reason that it can tell."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from server.errors import ServeError


class Interruption:
    """A block of the current task that may be ended early; the reason is then raised from it.

    Of several reasons the first counts. A task may be in several such blocks at once, each with its own.
    """

    __slots__ = ("_error", "_task")

    def __init__(self) -> None:
        """Be entered once."""
        self._task: asyncio.Task[object] | None = None
        self._error: ServeError | None = None

    def interrupt(self, error: ServeError) -> None:
        """End the block with `error`; before and after it nothing happens. For the event loop's thread."""
        if self._task is not None and self._error is None:
            self._error = error
            self._task.cancel()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._error is None or task is None:
            return
        others = task.uncancel()  # Whoever else cancelled the task is to hear of it.
        if not others and isinstance(error, asyncio.CancelledError):
            raise self._error from None


class TimeLimit(Interruption):
    """A block that may take so long."""

    __slots__ = ("_late", "_seconds", "_timer")

    def __init__(self, seconds: float, late: ServeError) -> None:
        """End the block with `late` after `seconds`."""
        super().__init__()
        self._seconds = seconds
        self._late = late
        self._timer: asyncio.TimerHandle

    def __enter__(self) -> Self:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self.interrupt, self._late)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        super().__exit__(kind, error, trace)
