"""What callers use, held against their limits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from server.access.caller import Caller
from server.errors import CallerBusyError, FieldError, InvalidInputError, RateLimitError, RejectedError

BUSY_RETRY_S = 1.0


class Quotas:
    """Counts the requests in progress and the images of the last minute, by caller.

    It belongs to the event loop's thread.
    """

    def __init__(self) -> None:
        """Begin with nothing used."""
        self._in_progress: Counter[str] = Counter()
        self._storage = MemoryStorage()
        self._window = MovingWindowRateLimiter(self._storage)

    @contextmanager
    def hold(self, caller: Caller, images: int) -> Iterator[None]:
        """Count a request for `images` images while the block runs, and its images for a minute.

        Images of a request that the block refuses (RejectedError) are not counted.

        Raises:
            InvalidInputError: so many images can never be had in a minute.
            CallerBusyError: the caller has too many requests in progress.
            RateLimitError: the caller has had too many images; it says when these can be had.
        """
        limits = caller.limits
        if limits.concurrency is not None and self._in_progress[caller.id] >= limits.concurrency:
            raise CallerBusyError(
                f"this key may have {limits.concurrency} requests in progress; one has to end first",
                BUSY_RETRY_S,
            )
        rate = None if limits.images_per_minute is None else RateLimitItemPerMinute(limits.images_per_minute)
        if rate is not None:
            self._take(rate, caller.id, images)
        self._in_progress[caller.id] += 1
        try:
            yield
        except RejectedError:
            if rate is not None:
                self._give_back(rate, caller.id, images)
            raise
        finally:
            self._in_progress[caller.id] -= 1

    def _take(self, rate: RateLimitItemPerMinute, caller: str, images: int) -> None:
        if images > rate.amount:
            raise InvalidInputError(
                [FieldError("n", f"{images} is more than the {rate.amount} images a minute of this key")]
            )
        if self._window.hit(rate, caller, cost=images):
            return
        # The images that have to leave the window first; the storage has the latest image first.
        last = self._storage.events[rate.key_for(caller)][rate.amount - images]
        raise RateLimitError(f"this key may have {rate.amount} images a minute", last.expiry - time.time())

    def _give_back(self, rate: RateLimitItemPerMinute, caller: str, images: int) -> None:
        key = rate.key_for(caller)
        with self._storage.locks[key]:
            del self._storage.events[key][:images]
