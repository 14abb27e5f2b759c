"""From images as they are found to a zip archive in EDM's layout."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from rich.progress import Progress

from trainer.data.archive_writer import writing
from trainer.data.classes import require_every_class
from trainer.data.config import OnBadImage
from trainer.data.decoding import BadImageError, decode_image
from trainer.data.originals import Original, Originals

Frame = Callable[[Image.Image], Image.Image]
"""Cuts an image to its final size."""

_WINDOW = 256
"""Images that are in memory at once."""


@dataclass(frozen=True)
class Conversion:
    """What became of the images.

    Attributes:
        images: how many were written.
        classes: how many there are.
        skipped: why each of the others was not.
    """

    images: int
    classes: int
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class _Picture:
    size: tuple[int, int]
    png: bytes


def convert(
    originals: Originals, out: Path, *, frame: Frame, on_bad_image: OnBadImage, progress: Progress
) -> Conversion:
    """Write images as PNG into an archive that appears whole or not at all; same input, same bytes.

    Args:
        originals: the images.
        out: path of the archive.
        frame: cuts each image, RGB, to its final size; all must then be alike.
        on_bad_image: what one means that cannot be used.
        progress: where to show how far it is.

    Raises:
        BadImageError: an image is damaged or of another size than the first, and `on_bad_image` is `fail`.
        DataError: a class is left without an image, or `out` cannot be written.
    """
    first: _Picture | None = None
    skipped: list[str] = []
    task = progress.add_task(out.name, total=len(originals))
    with writing(out) as archive:
        for original, future in _pictures(originals, frame):
            try:
                picture = future.result()
                first = first or picture
                if picture.size != first.size:
                    raise BadImageError(
                        f"{original.name} has {_pixels(picture)} pixels, the first image {_pixels(first)}; "
                        "make them alike with --size"
                    )
            except BadImageError as error:
                if on_bad_image == "fail":
                    raise
                skipped.append(str(error))
            else:
                archive.add_png(picture.png, original.label)
            progress.advance(task)
        require_every_class(archive.labels, originals.class_names, out)
        archive.write_index(originals.class_names)
    return Conversion(len(archive.labels), len(originals.class_names), tuple(skipped))


def _pictures(originals: Originals, frame: Frame) -> Iterator[tuple[Original, Future[_Picture]]]:
    """Pillow decodes and encodes outside Python's lock, so threads suffice."""
    waiting: deque[tuple[Original, Future[_Picture]]] = deque()
    with ThreadPoolExecutor() as pool:
        for original in originals:
            waiting.append((original, pool.submit(_picture, original, frame)))
            if len(waiting) == _WINDOW:
                yield waiting.popleft()
        yield from waiting


def _picture(original: Original, frame: Frame) -> _Picture:
    image = frame(decode_image(original.read(), original.name))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return _Picture(image.size, buffer.getvalue())


def _pixels(picture: _Picture) -> str:
    return " x ".join(map(str, picture.size))
