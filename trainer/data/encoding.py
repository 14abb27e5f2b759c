"""From an archive of images to one of latents, in parts that outlive a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.progress import Progress

from trainer.data.archive import Archive
from trainer.data.archive_writer import writing
from trainer.data.edm_zip import ZipImages
from trainer.data.latents import Moments
from trainer.data.replacing import replacing
from trainer.data.sd_vae import SdVaeEncoder
from trainer.errors import DataError

_DOWNSAMPLING = 8


def encode_latents(
    images: ZipImages, encoder: SdVaeEncoder, out: Path, *, batch: int, progress: Progress
) -> None:
    """Encode each image once and write means and deviations into an archive in EDM2's layout.

    Each batch is kept as a file in the folder `.OUT.parts` until `out` is whole, so that a run that was
    killed goes on with the next batch; the archive's bytes are those of a run that was not. The folder needs
    as much room as `out`. Parts of other images, of another encoder or batch size are thrown away.

    Args:
        images: unfolded.
        encoder: gives the latents' distributions.
        out: path of the archive.
        batch: images in one call of the encoder.
        progress: where to show how far it is.

    Raises:
        BadImageError: an image cannot be read.
        DataError: the images' sides are no multiples of 8, or `out` cannot be written.
    """
    _, height, width = images.shape
    if height % _DOWNSAMPLING or width % _DOWNSAMPLING:
        raise DataError(f"the VAE needs sides that are multiples of 8, not {width} x {height}; use --size")
    parts = out.with_name(f".{out.name}.parts")
    _start(parts, {"images": images.archive.digest(), "encoder": encoder.repository, "batch": batch})
    task = progress.add_task(out.name, total=len(images))
    paths = []
    for start in range(0, len(images), batch):
        indices = np.arange(start, min(start + batch, len(images)))
        path = parts / f"{start:09d}.npy"
        if not path.exists():
            with replacing(path) as file:
                np.lib.format.write_array(file, encoder.encode(images.pixels(indices)), allow_pickle=False)
        paths.append(path)
        progress.advance(task, len(indices))
    _join(paths, images.archive, out)
    shutil.rmtree(parts)


def _start(parts: Path, source: dict[str, str | int]) -> None:
    """Make the folder of the parts, without any that are of another source."""
    record, text = parts / "source.json", json.dumps(source)
    if record.exists() and record.read_text() == text:
        return
    if parts.exists():
        shutil.rmtree(parts)
    with replacing(record) as file:
        file.write(text.encode())


def _join(paths: list[Path], source: Archive, out: Path) -> None:
    with writing(out) as archive:
        for moments, label in zip(_moments(paths), source.labels, strict=True):
            archive.add_moments(moments, int(label))
        archive.write_index(source.class_names if source.labelled else None)


def _moments(paths: list[Path]) -> Iterator[Moments]:
    for path in paths:
        yield from np.load(path, allow_pickle=False)
