"""Where the command's images go: a file each, or one picture of all."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from server.encoding import encode
from server.generation.order import Made, MadeImage
from server.image_format import ImageFormat

SUFFIXES: Mapping[str, ImageFormat] = {
    ".png": ImageFormat.PNG,
    ".webp": ImageFormat.WEBP,
    ".jpg": ImageFormat.JPEG,
    ".jpeg": ImageFormat.JPEG,
}


def write_files(made: Made, directory: Path, image_format: ImageFormat) -> list[Path]:
    """Write a file for each image, named by its class and seed."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w]+", "-", made.class_name or made.model).strip("-")
    paths = [directory / f"{stem}-{image.seed}.{image_format}" for image in made.images]
    for path, image in zip(paths, made.images, strict=True):
        path.write_bytes(image.data)
    return paths


def write_grid(images: Sequence[MadeImage], path: Path) -> None:
    """Write all images into one, row by row, as square as it goes; the path's ending says in which format."""
    pictures = [PIL.Image.open(io.BytesIO(image.data)).convert("RGB") for image in images]
    width, height = pictures[0].size
    columns = math.ceil(math.sqrt(len(pictures)))
    grid = PIL.Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height), "white")
    for index, picture in enumerate(pictures):
        grid.paste(picture, (index % columns * width, index // columns * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(np.asarray(grid), SUFFIXES[path.suffix.lower()]))
