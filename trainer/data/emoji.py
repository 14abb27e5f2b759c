"""The emoji data set: one class an emoji, one image a drawing style."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from importlib import resources
from typing import Literal

import numpy as np
from pydantic import Field, TypeAdapter
from rich.progress import Progress

from models.frozen import FrozenModel
from trainer.data.arrays import ArrayImages
from trainer.data.glyphs import GlyphSource, IconifySet, ImageSet
from trainer.data.npm import NpmPackage, TarballStore
from trainer.errors import DataError

TRAINING_STYLES = ("noto", "noto_v1", "twemoji", "fluent_flat", "emojitwo", "fluent_3d")
"""What the demo model learns from. `streamline` is left out: its outlines are unlike all others."""

HELD_OUT_STYLE = "fxemoji"
"""Never trained on; real images to compare the model's figures with."""


class EmojiClass(FrozenModel):
    """One class; its place in the list is its id.

    Attributes:
        codepoint: lower-case hexadecimal, e.g. `1f436`.
        name: English, for people.
    """

    codepoint: str = Field(pattern=r"^[0-9a-f]{4,5}$")
    name: str


class EmojiStyle(FrozenModel):
    """One drawing style and where its drawings come from.

    Attributes:
        format: `iconify` (SVG in JSON) or `webp`.
        icons: code point -> icon name, for an icon set that does not know code points.
        licence: SPDX identifier of the drawings.
    """

    name: str
    format: Literal["iconify", "webp"]
    package: NpmPackage
    licence: str
    icons: dict[str, str] = Field(default_factory=dict)

    def open(self, archive: tarfile.TarFile) -> GlyphSource:
        """Return the drawings in the package's open tarball."""
        return IconifySet(archive, self.icons) if self.format == "iconify" else ImageSet(archive)


def emoji_classes() -> list[EmojiClass]:
    """Return the demo's 256 classes in the order of their ids."""
    return TypeAdapter(list[EmojiClass]).validate_json(_data("emoji_classes.json"))


def emoji_styles() -> list[EmojiStyle]:
    """Return the eight styles with their pinned packages."""
    return TypeAdapter(list[EmojiStyle]).validate_json(_data("emoji_styles.json"))


def _data(name: str) -> bytes:
    return resources.files("trainer").joinpath("data", name).read_bytes()


def build_emoji(
    styles: Sequence[EmojiStyle],
    classes: Sequence[EmojiClass],
    store: TarballStore,
    size: int,
    progress: Progress,
) -> ArrayImages:
    """Draw every class in every style that has it; the same arrays every time.

    Args:
        styles: in the order of the result's `style_names`.
        classes: in the order of their ids.
        store: gives the packages' tarballs.
        size: side of the images in pixels.
        progress: where to show how far it is.

    Raises:
        PackageError: a package cannot be had, is not the pinned one, or lacks a named icon.
        DataError: a class has no drawing at all.
    """
    images, labels, style_ids = [], [], []
    task = progress.add_task("emoji", total=len(styles) * len(classes))
    for style_id, style in enumerate(styles):
        progress.update(task, description=style.package.spec)
        with tarfile.open(store.get(style.package)) as archive:
            source = style.open(archive)
            for label, emoji in enumerate(classes):
                drawing = source.draw(emoji.codepoint, size)
                if drawing is not None:
                    images.append(np.asarray(drawing))
                    labels.append(label)
                    style_ids.append(style_id)
                progress.advance(task)
    missing = sorted(set(range(len(classes))) - set(labels))
    if missing:
        raise DataError(f"no style draws {', '.join(classes[label].name for label in missing)}")
    return ArrayImages(
        images=np.stack(images),
        labels=np.array(labels, np.int64),
        class_names=tuple(emoji.name for emoji in classes),
        style=np.array(style_ids, np.int64),
        style_names=tuple(style.name for style in styles),
    )
