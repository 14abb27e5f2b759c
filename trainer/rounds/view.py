"""A run of rounds as a person watches it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from rich.progress import Progress, TaskID

from trainer.training.runner import training_progress


class View:
    """Progress bars and, at each change of phase, a line of the log; silent for all processes but one.

    Attributes:
        progress: for whoever shows bars of its own.
    """

    def __init__(self, *, silent: bool) -> None:
        self.progress: Progress = training_progress(disable=silent)
        self._silent = silent

    def say(self, event: str, **facts: object) -> None:
        """Log a line."""
        if not self._silent:
            structlog.get_logger(__name__).info(event, **facts)

    @contextmanager
    def phase(self, event: str, **facts: object) -> Iterator[None]:
        """Log a line, and do as `passing`."""
        self.say(event, **facts)
        with self.passing():
            yield

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Take away, at the end, the bars that were added meanwhile."""
        before = set(self.progress.task_ids)
        try:
            yield
        finally:
            for task in set(self.progress.task_ids) - before:
                self.progress.remove_task(task)

    def bar(self, description: str, total: int, completed: int) -> TaskID:
        """Add a bar, in images."""
        return self.progress.add_task(description, total=total, completed=completed)

    def show(self, bar: TaskID, *, completed: int | None = None, figures: dict[str, Any]) -> None:
        """Move a bar, and show figures by name beside it."""
        self.progress.update(bar, completed=completed, **figures)
