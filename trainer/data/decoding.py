"""From the bytes of a file to pixels or numbers, whoever made the file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.errors import DataError

MAX_BYTES = 256 << 20
"""No file of a data set needs more; a compressed one that says it does is a bomb."""

MAX_PIXELS = 1 << 26
"""More than any photograph of ImageNet has; a small file can claim many more."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""Pillow knows more, and some of them start other programs."""


class BadImageError(DataError):
    """One image cannot be used: it is damaged, too big, or not what the others are."""


def read_file(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        BadImageError: it cannot be read, or is larger than `MAX_BYTES`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadImageError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise BadImageError(f"{path} is larger than the {MAX_BYTES:,} bytes that an image may have")
    return content


def decode_image(content: bytes, name: str) -> Image.Image:
    """Decode PNG, JPEG, WebP or BMP to 8-bit RGB.

    Grey, palette and CMYK images are converted; what is transparent is laid on white. Pixels are taken as
    they are stored: an orientation tag is not followed.

    Args:
        content: of the file; it decides the format, whatever the name ends with.
        name: says in messages which image it is.

    Raises:
        BadImageError: it is damaged, of another format or depth, or has more than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImageError(
                    f"{name} claims {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}"
                )
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                raise BadImageError(f"{name} has more than 8 bits a channel; save it with 8")
            return _rgb(image)
    except BadImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BadImageError(f"{name} claims more than {MAX_PIXELS:,} pixels: {error}") from error
    except Exception as error:  # Pillow raises many types for damaged files.
        raise BadImageError(
            f"{name} is damaged or none of {', '.join(_FORMATS)} ({error}); replace it or leave it out"
        ) from error


def decode_array(content: bytes, name: str) -> npt.NDArray[Any]:
    """Decode an .npy file.

    Raises:
        BadImageError: it is damaged, or holds Python objects.
    """
    try:
        array: npt.NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise BadImageError(
            f"{name} is not a whole .npy file ({error}); replace it or leave it out"
        ) from error
    return array


def _rgb(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
