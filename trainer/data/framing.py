"""Photographs of any shape as squares of one size."""

from __future__ import annotations

from typing import Literal

from PIL import Image

ResizeMethod = Literal["lanczos", "box", "adm"]
"""`lanczos` and `box` are Pillow's filters. `adm` is how ImageNet is made small in the literature since
Dhariwal & Nichol (2021, arXiv 2105.05233): halved by averages while it stays large enough, then bicubic."""


def square(image: Image.Image, size: int | None, method: ResizeMethod) -> Image.Image:
    """Return the middle of an image as a square of `size` x `size` pixels.

    Args:
        image: RGB. One that is a square of this size already is returned as it is.
        size: side in pixels; None leaves every image as it is.
        method: how pixels are averaged. `adm` resizes before it cuts, the others after.
    """
    if size is None or image.size == (size, size):
        return image
    if method == "adm":
        return _middle(_shrunk(image, size), size)
    filters = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
    return _middle(image, min(image.size)).resize((size, size), filters[method])


def _middle(image: Image.Image, side: int) -> Image.Image:
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _shrunk(image: Image.Image, size: int) -> Image.Image:
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    sides = (round(image.width * scale), round(image.height * scale))
    return image.resize(sides, Image.Resampling.BICUBIC)
