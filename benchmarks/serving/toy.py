"""A model that costs time and computes nothing, for whatever serves it: ours and the peers."""

from __future__ import annotations

import hashlib
import mmap
import struct
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_ROWS = 8
_FIELDS = struct.Struct("4q")


class Counts(NamedTuple):
    """What a model has done: calls, rows in these calls together, images, and nanoseconds in calls."""

    calls: int
    rows: int
    images: int
    busy_ns: int


class Tally:
    """Counts in a small file, which another process reads while they grow."""

    def __init__(self, file: Path) -> None:
        """Open the file, made and zeroed where it is not there."""
        if not file.exists():
            file.write_bytes(bytes(_FIELDS.size))
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), _FIELDS.size)
        self._calls, self._rows, self._images, self._busy_ns = self.read()

    def add(self, *, calls: int = 0, rows: int = 0, images: int = 0, busy_ns: int = 0) -> None:
        """Count; one object of one process only, since it is part of what is measured and reads nothing."""
        self._calls += calls
        self._rows += rows
        self._images += images
        self._busy_ns += busy_ns
        _FIELDS.pack_into(self._map, 0, self._calls, self._rows, self._images, self._busy_ns)

    def read(self) -> Counts:
        """Return the counts so far; a call counts from its beginning, its time from its end."""
        return Counts(*_FIELDS.unpack_from(self._map))


class Toy:
    """The model: every call of up to `max_rows` rows takes the same time; a row's state is a number.

    Args:
        call_s: seconds of a call.
        tally: where calls, rows and images are counted.
        salt: goes into every call, as weights do: rows of two salts never give the same image.
        max_rows: most rows of a call.
        size: of its images, pixels.
    """

    def __init__(
        self, call_s: float, tally: Tally, *, salt: int = 1, max_rows: int = MAX_ROWS, size: int = 32
    ) -> None:
        self.call_s = call_s
        self.max_rows = max_rows
        self._tally = tally
        self._salt = salt
        self._size = size

    @staticmethod
    def noise(class_id: int, seed: int, steps: int) -> int:
        """Return the state that a row starts with."""
        return hash((class_id, seed, steps))

    def call(self, states: list[int]) -> list[int]:
        """Advance rows by one step. It sleeps, as a thread does that waits for an accelerator."""
        started = time.monotonic_ns()
        assert 0 < len(states) <= self.max_rows
        self._tally.add(calls=1, rows=len(states))
        advanced = [hash((state, self._salt)) for state in states]
        time.sleep(max(0.0, self.call_s - (time.monotonic_ns() - started) / 1e9))
        self._tally.add(busy_ns=time.monotonic_ns() - started)
        return advanced

    def image(self, state: int) -> npt.NDArray[np.uint8]:
        """Return the image of a finished row, (size, size, 3) uint8, every pixel drawn from its state."""
        self._tally.add(images=1)
        return self.preview(state)

    def preview(self, state: int) -> npt.NDArray[np.uint8]:
        """Return the image that a row's state would give now, (size, size, 3) uint8."""
        noise = hashlib.shake_128(state.to_bytes(8, "big", signed=True)).digest(3 * self._size**2)
        return np.frombuffer(noise, np.uint8).reshape(self._size, self._size, 3)
