"""Finished images on their way to the disk."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from server.scheduling.ticket import Image

CHUNK_IMAGES = 64
# What a killed server loses: images of so many seconds, made but not written.
CHUNK_SECONDS = 5.0


class ChunkWriter:
    """Gathers images of consecutive places and has them written, many at once or after a few seconds."""

    def __init__(
        self,
        write: Callable[[int, Sequence[Image]], Awaitable[None]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write by `write`, which gets the first place and the images; `clock` gives seconds."""
        self._write = write
        self._clock = clock
        self._start = 0
        self._since = 0.0
        self._images: list[Image] = []

    async def add(self, place: int, image: Image) -> None:
        """Take an image, (H, W, 3) uint8 RGB; places ascend."""
        if place != self._start + len(self._images):
            await self.flush()
        if not self._images:
            self._start, self._since = place, self._clock()
        self._images.append(image)
        if len(self._images) >= CHUNK_IMAGES or self._clock() - self._since >= CHUNK_SECONDS:
            await self.flush()

    async def flush(self) -> None:
        """Write what was gathered."""
        start, images = self._start, self._images
        self._images = []
        if images:
            await self._write(start, images)
