"""One door to training images, whatever file they lie in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import structlog

from models.spec import SdVaeCodec
from trainer.data.archive import Archive
from trainer.data.arrays import ArrayImages
from trainer.data.classes import require_every_class
from trainer.data.config import DataConfig
from trainer.data.decoding import BadImageError
from trainer.data.edm_zip import ZipImages, decode_pixels
from trainer.data.latents import LatentImages, decode_moments, holds_latents
from trainer.data.source import TrainingImages
from trainer.errors import DataError


def open_images(config: DataConfig) -> TrainingImages:
    """Open the images that `config` names.

    Raises:
        DataError: the file is of an unknown type or not as it must be, or a class has no image.
        BadImageError: the first image cannot be used.
    """
    match config.path.suffix.lower():
        case ".npz":
            return _open_arrays(config)
        case ".zip":
            return _open_archive(config)
        case _:
            raise DataError(
                f"{config.path} is neither .npz nor .zip; `python -m trainer data folder` makes a .zip "
                "of a folder"
            )


def _open_arrays(config: DataConfig) -> ArrayImages:
    images = ArrayImages.load(config.path, config.fold)
    if config.styles:
        try:
            images = images.of_styles(*config.styles)
        except DataError as error:
            raise DataError(f"{config.path}: {error}") from error
    require_every_class(images.labels, images.class_names, config.path)
    return images


def _open_archive(config: DataConfig) -> ZipImages | LatentImages:
    if config.styles:
        raise DataError(f"{config.path} has no styles to choose from; leave `styles` out")
    archive = Archive.open(config.path)
    latents = holds_latents(archive)
    if latents and config.fold != 1:
        raise DataError(f"{config.path} holds latents, which are not folded; leave `fold` out")
    if config.on_bad_image == "skip":
        archive = _without_bad_images(archive, decode_moments if latents else decode_pixels)
    require_every_class(archive.labels, archive.class_names, config.path)
    return LatentImages(archive, SdVaeCodec()) if latents else ZipImages(archive, config.fold)


def _without_bad_images(archive: Archive, decode: Callable[[bytes, str], npt.NDArray[np.generic]]) -> Archive:
    """Leave out what cannot be decoded and what has not the shape of the first that can."""
    kept: list[int] = []
    shape: tuple[int, ...] | None = None
    for index in range(len(archive)):
        try:
            found = decode(archive.content(index), archive.name(index)).shape
        except BadImageError as error:
            reason = str(error)
        else:
            shape = shape or found
            if found == shape:
                kept.append(index)
                continue
            reason = f"{archive.name(index)} has the shape {found}, the first image {shape}"
        structlog.get_logger(__name__).warning("bad image left out", reason=reason)
    return archive.keep(np.array(kept, np.int64))
