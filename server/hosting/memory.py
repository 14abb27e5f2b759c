"""Which engines leave so that another one fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from server.errors import NotReadyError, VersionRefusedError
from server.hosting.catalogue import ServedModel

BUSY_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What engines may hold together.

    Attributes:
        limit: in bytes; None: as much as they like.
    """

    limit: int | None

    def leavers(self, need: int, held: int, idle: Iterable[ServedModel]) -> list[ServedModel]:
        """Return the versions that have to leave, those first that were not used for the longest time.

        Args:
            need: bytes of the engine to come.
            held: bytes of all engines that are there.
            idle: versions that may leave.

        Raises:
            VersionRefusedError: the engine alone is larger than the limit.
            NotReadyError: there is too little room even without the idle ones.
        """
        if self.limit is None:
            return []
        if need > self.limit:
            raise VersionRefusedError(f"it needs {need} bytes of memory; memory_bytes is {self.limit}")
        leaving = []
        for model in sorted(idle, key=lambda model: model.last_used):
            if held + need <= self.limit:
                break
            leaving.append(model)
            held -= model.held_nbytes
        if held + need > self.limit:
            raise NotReadyError(
                f"it needs {need} bytes of memory, and those in use hold {held} of memory_bytes {self.limit}",
                BUSY_RETRY_S,
            )
        return leaving
