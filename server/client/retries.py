"""When a failed request is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from server.client.errors import (
    BusyError,
    ClientError,
    RefusedError,
    ServerFailureError,
    UnavailableError,
    UnreachableError,
)


@dataclass(frozen=True)
class Retries:
    """A bound on trying again, in number and in time.

    The server's Retry-After is kept to; what asks for more time than is left is not tried again, nor is a
    request that was too late for its deadline.

    Attributes:
        attempts: tries of one request, the first among them.
        total_s: seconds that are waited for one request, all waits together.
        first_s: seconds of the first wait where the server does not say; each one after it is twice as long.
        draw: gives a number from 0 to 1; a wait is longer by half of it, so that clients do not come back
            together.
    """

    attempts: int = 5
    total_s: float = 60.0
    first_s: float = 0.25
    draw: Callable[[], float] = random.random

    def wait_s(self, error: ClientError, attempt: int, waited_s: float) -> float | None:
        """Return the seconds to wait before the next try; None: there is none.

        Args:
            error: what went wrong.
            attempt: tries so far.
            waited_s: seconds waited so far.
        """
        if attempt >= self.attempts:
            return None
        asked = error.retry_after_s if isinstance(error, RefusedError) else None
        match error:
            case BusyError() if asked is None:  # Waiting does not help, says the server.
                return None
            case BusyError() | UnavailableError() | ServerFailureError() | UnreachableError():
                wait_s = self.first_s * 2 ** (attempt - 1) if asked is None else asked
                wait_s *= 1 + self.draw() / 2
            case _:
                return None
        return wait_s if waited_s + wait_s <= self.total_s else None
