"""Emoji drawings inside icon packages."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any, Protocol

import resvg_py
from PIL import Image

from trainer.errors import PackageError

OVERSAMPLING = 8
"""Vector drawings are rendered this many times larger and averaged: 64 samples a pixel."""

_BOX = {"left": 0, "top": 0, "width": 16, "height": 16}
"""An icon's view box where neither it nor its set says otherwise (the IconifyJSON format)."""


class GlyphSource(Protocol):
    """The drawings of one style."""

    def draw(self, codepoint: str, size: int) -> Image.Image | None:
        """Draw one emoji on white.

        Args:
            codepoint: lower-case hexadecimal, e.g. `1f436`.
            size: side of the square image in pixels.

        Returns:
            An RGB image, or None where the style has no such emoji.
        """
        ...


class IconifySet:
    """Vector drawings of an Iconify icon set (`icons.json`, and `chars.json` where the set has code points).

    Args:
        archive: the package's tarball, open.
        names: code point -> icon, for sets without code points; it overrides `chars.json`.
    """

    def __init__(self, archive: tarfile.TarFile, names: Mapping[str, str]) -> None:
        self._set: dict[str, Any] = json.loads(_member(archive, "icons.json"))
        chars = (
            json.loads(_member(archive, "chars.json")) if "package/chars.json" in archive.getnames() else {}
        )
        self._names: dict[str, str] = {**chars, **names}

    def draw(self, codepoint: str, size: int) -> Image.Image | None:
        """Draw one emoji; see GlyphSource. Raises PackageError where a name leads to no icon."""
        name = self._names.get(codepoint)
        if name is None:
            return None
        icon = self._set["icons"].get(name)
        if icon is None:
            raise PackageError(
                f"the icon set {self._set['prefix']} has no icon {name} for U+{codepoint.upper()}"
            )
        box = {key: icon.get(key, self._set.get(key, default)) for key, default in _BOX.items()}
        side = size * OVERSAMPLING
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{side}" height="{side}" '
            f'viewBox="{box["left"]} {box["top"]} {box["width"]} {box["height"]}">{icon["body"]}</svg>'
        )
        # System fonts would make the drawing depend on the machine.
        png = resvg_py.svg_to_bytes(svg_string=svg, background="white", skip_system_fonts=True)
        return _shrink(Image.open(io.BytesIO(png)), size)


class ImageSet:
    """Transparent bitmaps named by code point, U+FE0F (emoji presentation) with or without.

    Args:
        archive: the package's tarball, open for as long as this object draws.
    """

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = frozenset(archive.getnames())

    def draw(self, codepoint: str, size: int) -> Image.Image | None:
        """Draw one emoji; see GlyphSource."""
        for stem in (codepoint, f"{codepoint}-fe0f"):
            if f"package/assets/{stem}.webp" in self._members:
                bitmap = Image.open(io.BytesIO(_member(self._archive, f"assets/{stem}.webp"))).convert("RGBA")
                white = Image.new("RGBA", bitmap.size, "white")
                return _shrink(Image.alpha_composite(white, bitmap), size)
        return None


def _member(archive: tarfile.TarFile, path: str) -> bytes:
    try:
        file = archive.extractfile(f"package/{path}")
    except KeyError:
        file = None
    if file is None:
        raise PackageError(f"{archive.name!r} has no file package/{path}")
    return file.read()


def _shrink(image: Image.Image, size: int) -> Image.Image:
    return image.convert("RGB").resize((size, size), Image.Resampling.BOX)
