"""Which replica is asked first, and which next if it refuses."""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Balance(Generic[K]):
    """Counts the images under way at each replica, as far as one router sent them.

    It knows no network and no clock, so that a simulation of a fleet chooses as a router does.
    """

    def __init__(self, draw: random.Random) -> None:
        """Break ties by `draw`, so that several routers do not all ask the same replica."""
        self._draw = draw
        self._held: dict[K, int] = {}

    def order(self, replicas: Collection[K]) -> list[K]:
        """Return the replicas, the one with the fewest images under way first."""
        shuffled = self._draw.sample(list(replicas), len(replicas))
        return sorted(shuffled, key=self.under_way)

    def under_way(self, replica: K) -> int:
        """Return how many images a replica makes."""
        return self._held.get(replica, 0)

    def add(self, replica: K, images: int) -> None:
        """Count images as sent; a negative number as answered."""
        held = self.under_way(replica) + images
        if held:
            self._held[replica] = held
        else:
            self._held.pop(replica, None)

    @contextmanager
    def hold(self, replica: K, images: int) -> Iterator[None]:
        """Count images while the block runs."""
        self.add(replica, images)
        try:
            yield
        finally:
            self.add(replica, -images)
