"""How soon a request's images are wanted."""

from __future__ import annotations

from enum import StrEnum


class Priority(StrEnum):
    """Somebody waits for interactive rows; batch rows take what those leave."""

    INTERACTIVE = "interactive"
    BATCH = "batch"
