"""From pixels to image files, beside the engine."""

from __future__ import annotations

import asyncio
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import PIL.Image

from server.image_format import ImageFormat
from server.metrics import Metrics
from server.scheduling.ticket import Image

# PNG and WebP are lossless and favour speed over the last per cent of size. Behind PNG's filters photographs
# hold few matches that are longer than runs of one byte: to look for them, even on zlib's level 1, takes more
# time and gives larger files (docs/benchmarks.md).
OPTIONS: dict[ImageFormat, dict[str, Any]] = {
    ImageFormat.PNG: {"compress_type": zlib.Z_RLE},
    ImageFormat.WEBP: {"lossless": True, "quality": 0, "method": 0},
    ImageFormat.JPEG: {"quality": 95, "subsampling": 0},
}


def encode(image: Image, image_format: ImageFormat, size: tuple[int, int] | None = None) -> bytes:
    """Encode an image, (H, W, 3) uint8 RGB; equal pixels give equal bytes.

    Args:
        image: what to encode.
        image_format: how.
        size: width and height to scale it to; None: its own.
    """
    height, width, _ = image.shape
    picture = PIL.Image.frombytes("RGB", (width, height), image.tobytes())
    if size not in (None, picture.size):
        picture = picture.resize(size)
    buffer = BytesIO()
    picture.save(buffer, format=image_format.value, **OPTIONS[image_format])
    return buffer.getvalue()


def fitting(width: int, height: int, longest: int | None) -> tuple[int, int]:
    """Return width and height, scaled down so that neither is more than `longest`; None is no limit."""
    scale = 1.0 if longest is None else min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


# Up to 64x64 pixels an image is encoded sooner (0.1 to 0.3 ms) than a thread of the pool wakes up.
INLINE_BYTES = 64 * 64 * 3


class Encoder:
    """Encodes small images at once and large ones on a thread pool."""

    def __init__(self, threads: int, metrics: Metrics) -> None:
        """Start no thread before the first image."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encoder")
        self._seconds = {each: metrics.encode.labels(each) for each in ImageFormat}

    async def encode(
        self, image: Image, image_format: ImageFormat, size: tuple[int, int] | None = None
    ) -> bytes:
        """Encode an image as `encode` does, without holding up the event loop."""
        if image.nbytes <= INLINE_BYTES:
            return self._timed(image, image_format, size)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._timed, image, image_format, size)

    def close(self) -> None:
        """End the pool's threads once they are idle."""
        self._pool.shutdown(wait=False)

    def _timed(self, image: Image, image_format: ImageFormat, size: tuple[int, int] | None) -> bytes:
        started = time.perf_counter()
        data = encode(image, image_format, size)
        self._seconds[image_format].observe(time.perf_counter() - started)
        return data
