"""Which images training reads, as a configuration says it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from models.frozen import FrozenModel

OnBadImage = Literal["fail", "skip"]
"""What an image that cannot be used means: the end, with its name; or one image less, counted."""


class DataConfig(FrozenModel):
    """Which images to train on.

    Attributes:
        path: .npz with `images` (N, H, W, 3) uint8, `labels`, `class_names`, and where `styles` is used,
            `style` and `style_names`; or .zip in the layout of EDM's dataset tool, with images or
            EDM2's latents.
        styles: names of the drawing styles to keep; empty: all.
        fold: side of the square of pixels that is folded into channels; 1 for latents.
        on_bad_image: in a .zip. `fail` ends the run where the image is read; `skip` reads every image once
            when the set is opened and leaves out those that cannot be used.
    """

    path: Path
    styles: tuple[str, ...] = ()
    fold: int = Field(default=1, ge=1)
    on_bad_image: OnBadImage = "fail"
