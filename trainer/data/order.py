"""The order in which training sees its images."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from trainer.data.source import Indices


class Order:
    """An endless stream of passes over `count` images, each pass shuffled anew.

    The place of every image in the stream is a pure function of `seed`, so that any process can read any
    part of it, and a resumed run reads on where it stopped.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._pass = lru_cache(maxsize=2)(self._shuffled)

    def __getitem__(self, places: slice) -> Indices:
        """Return the images' indices at the places start to stop of the stream, (stop - start,) int64."""
        passes, within = np.divmod(np.arange(places.start, places.stop), self._count)
        order = np.empty(len(passes), dtype=np.int64)
        for number in np.unique(passes):
            here = passes == number
            order[here] = self._pass(int(number))[within[here]]
        return order

    def _shuffled(self, number: int) -> Indices:
        return np.random.default_rng((self._seed, number)).permutation(self._count)
