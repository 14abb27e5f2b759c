"""The emoji data set: one class an emoji, one image a drawing style."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal, Self
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
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


@dataclass(frozen=True)
class EmojiImages:
    """A data set in memory, as its .npz holds it.

    Attributes:
        images: (N, H, W, 3) uint8 RGB on white, ordered by style, then class.
        labels: (N,) int16, index into `class_names`.
        style: (N,) uint8, index into `style_names`.
        style_names, class_names, codepoints: text.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int16]
    style: npt.NDArray[np.uint8]
    style_names: tuple[str, ...]
    class_names: tuple[str, ...]
    codepoints: tuple[str, ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an .npz; raises DataError where it is unreadable or lacks an array."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(
                    images=file["images"],
                    labels=file["labels"],
                    style=file["style"],
                    style_names=_text(file["style_names"]),
                    class_names=_text(file["class_names"]),
                    codepoints=_text(file["codepoints"]),
                )
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise DataError(f"{path} is not an emoji data set: {error}") from error

    def save(self, path: Path) -> None:
        """Write an .npz, and the folders above it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                images=self.images,
                labels=self.labels,
                style=self.style,
                style_names=np.array(self.style_names),
                class_names=np.array(self.class_names),
                codepoints=np.array(self.codepoints),
            )

    def of_styles(self, *names: str) -> Self:
        """Return the images of these styles only; raises DataError for an unknown one."""
        unknown = sorted(set(names) - set(self.style_names))
        if unknown:
            raise DataError(f"unknown styles {', '.join(unknown)}; known: {', '.join(self.style_names)}")
        keep = np.isin(self.style, [self.style_names.index(name) for name in names])
        return replace(self, images=self.images[keep], labels=self.labels[keep], style=self.style[keep])


def _text(array: npt.NDArray[np.str_]) -> tuple[str, ...]:
    return tuple(str(item) for item in array)


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
