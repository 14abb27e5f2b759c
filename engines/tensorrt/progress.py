"""How far a build is."""

from __future__ import annotations

from rich.progress import Progress, TaskID


class Steps:
    """Is told about the phases of a build, which nest; this one keeps silent."""

    def begin(self, name: str, parent: str | None, total: int) -> None:
        """Hear that a phase of `total` steps begins inside the phase `parent`."""

    def advance(self, name: str, step: int) -> None:
        """Hear that step `step` of a phase is done."""

    def end(self, name: str) -> None:
        """Hear that a phase is over."""


class ProgressSteps(Steps):
    """Shows the phases as bars.

    Args:
        progress: where to show them.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def begin(self, name: str, parent: str | None, total: int) -> None:
        """Show a bar."""
        indent = "  " if parent else ""
        self._bars[name] = self._progress.add_task(f"{indent}{name}", total=total or None)

    def advance(self, name: str, step: int) -> None:
        """Move the bar."""
        self._progress.update(self._bars[name], completed=step + 1)

    def end(self, name: str) -> None:
        """Take the bar away."""
        self._progress.remove_task(self._bars.pop(name))
