"""Contact sheets: many small images on one picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image


def contact_sheet(
    images: npt.NDArray[np.uint8], columns: int, *, scale: int = 1, gap: int = 2
) -> Image.Image:
    """Lay images out in rows on light grey; a last row that is not full stays empty at its end.

    Args:
        images: (N, H, W, 3) uint8, row by row. For classes x samples: N = classes * columns.
        columns: images in a row.
        scale: how many pixels of the sheet a pixel of an image becomes, each way.
        gap: pixels of the sheet between images and around them.

    Returns:
        An RGB image.
    """
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    large = images.repeat(scale, axis=1).repeat(scale, axis=2)
    step_y, step_x = height * scale + gap, width * scale + gap
    sheet = np.full((rows * step_y + gap, columns * step_x + gap, channels), 224, np.uint8)
    for index, image in enumerate(large):
        top, left = gap + index // columns * step_y, gap + index % columns * step_x
        sheet[top : top + height * scale, left : left + width * scale] = image
    return Image.fromarray(sheet)
