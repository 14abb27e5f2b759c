"""What TensorRT says while it builds, and which of it may be passed over."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Any

from engines.errors import EngineError

KEPT = 1000
"""Messages kept, the latest; a build with something to complain about has a handful."""

HARMLESS = (
    r"Make sure (input|output) \w+ has Int64 binding",  # it has: ports are bound as they are declared
)


@cache
def logger_of(api: Any) -> Any:
    """Return the one logger of this process: TensorRT ignores a second.

    Its attribute `messages` holds (severity, text) of warnings and errors, the oldest first.
    """

    class Logger(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.messages: deque[tuple[Any, str]] = deque(maxlen=KEPT)

        def log(self, severity: Any, text: str) -> None:
            if severity in (
                api.ILogger.Severity.WARNING,
                api.ILogger.Severity.ERROR,
                api.ILogger.Severity.INTERNAL_ERROR,
            ):
                self.messages.append((severity, text.strip()))

    return Logger()


def complaints(messages: Sequence[tuple[Any, str]]) -> list[str]:
    """Return the messages that are not known to be harmless.

    That a parser passes over an input is but a warning to TensorRT; the engine then computes something else.
    """
    return [text for _, text in messages if not any(re.search(pattern, text) for pattern in HARMLESS)]


def check_log(messages: Sequence[tuple[Any, str]], what: str) -> None:
    """Raise EngineError if TensorRT said anything about `what` that is not known to be harmless."""
    found = complaints(messages)
    if found:
        raise EngineError(f"TensorRT did not take {what} as it is: {'; '.join(dict.fromkeys(found))}")
