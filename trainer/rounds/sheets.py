"""Sheets of images: kept by a run, and small enough to stand inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from trainer.data.replacing import replacing
from trainer.errors import TrainerError

_WIDEST = 800
_SHRINKING = 0.8


def write_sheet(path: Path, sheet: Image.Image) -> None:
    """Write a sheet as PNG; raises DataError where it cannot be written."""
    with replacing(path) as file:
        sheet.save(file, "PNG")


def data_urls(paths: Sequence[Path], budget: int) -> list[str]:
    """Return sheets as `data:` URLs of PNGs.

    Args:
        paths: PNG files, at least one.
        budget: bytes of all URLs together; sheets are scaled down, all by one factor, until they fit.

    Raises:
        TrainerError: a file cannot be read.
    """
    sheets = [_read(path) for path in paths]
    scale = min(1.0, *(_WIDEST / sheet.width for sheet in sheets))
    while True:
        urls = [_data_url(_scaled(sheet, scale)) for sheet in sheets]
        if sum(map(len, urls)) <= budget:
            return urls
        scale *= _SHRINKING


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise TrainerError(f"cannot read the images {path}: {error}") from error


def _scaled(sheet: Image.Image, scale: float) -> Image.Image:
    width, height = (max(1, round(side * scale)) for side in sheet.size)
    return sheet.resize((width, height), Image.Resampling.LANCZOS)


def _data_url(sheet: Image.Image) -> str:
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
