"""File formats of images."""

from __future__ import annotations

from enum import StrEnum


class ImageFormat(StrEnum):
    """File formats that images can be had in."""

    PNG = "png"
    WEBP = "webp"
    JPEG = "jpeg"

    @property
    def media_type(self) -> str:
        """The format's media type."""
        return f"image/{self}"
