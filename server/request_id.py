"""Which request the current task works for: an id that is in its answer and in every line of its log."""

from __future__ import annotations

import os
from contextvars import ContextVar

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")


def draw_request_id() -> str:
    """Return an id that nobody can guess."""
    return os.urandom(8).hex()
