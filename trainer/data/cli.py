"""`python -m trainer data`: make data sets and look at them."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from models.spec import SdVaeCodec
from trainer.data.config import DataConfig, OnBadImage
from trainer.data.convert import convert
from trainer.data.edm_zip import ZipImages
from trainer.data.emoji import build_emoji, emoji_classes, emoji_styles
from trainer.data.encoding import encode_latents
from trainer.data.folder import FolderImages
from trainer.data.framing import ResizeMethod, square
from trainer.data.npm import TarballStore
from trainer.data.open import open_images
from trainer.data.originals import Originals
from trainer.data.sd_vae import SdVaeEncoder
from trainer.errors import DataError
from trainer.grid import contact_sheet

data = typer.Typer(no_args_is_help=True, help="Make data sets and look at them.")

_PACKAGES = Path("data/npm")
_NAMED = 10

Out = Annotated[Path, typer.Argument(help="The .zip to write.", dir_okay=False)]
Size = Annotated[
    int | None, typer.Option(help="Cut the middle square and resize it to this side in pixels.", min=1)
]
Method = Annotated[
    ResizeMethod, typer.Option(help="How --size resizes; `adm` is the literature's for ImageNet.")
]
Bad = Annotated[OnBadImage, typer.Option(help="What an image means that cannot be used.")]


@data.command()
def emoji(
    out: Annotated[Path, typer.Argument(help="The .npz to write.")],
    size: Annotated[int, typer.Option(help="Side of the images in pixels.", min=8)] = 32,
    packages: Annotated[Path, typer.Option(help="Folder that keeps the downloaded tarballs.")] = _PACKAGES,
    registry: Annotated[
        str | None,
        typer.Option(envvar="NPM_CONFIG_REGISTRY", help="npm registry to ask where there is no npm command."),
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Also draw all images on this PNG.")] = None,
) -> None:
    """Draw 256 emoji in eight styles from pinned npm packages."""
    store = TarballStore(packages, npm=shutil.which("npm"), registry=registry)
    with _progress() as progress:
        images = build_emoji(emoji_styles(), emoji_classes(), store, size, progress)
    images.save(out)
    if sheet is not None:
        contact_sheet(images.images, columns=32).save(sheet)
    typer.echo(f"{out}: {len(images.images)} images, {len(images.class_names)} classes")


@data.command()
def folder(
    source: Annotated[Path, typer.Argument(help="Folder that holds a folder a class.", file_okay=False)],
    out: Out,
    *,
    size: Size = None,
    resize: Method = "lanczos",
    on_bad_image: Bad = "fail",
) -> None:
    """Pack a folder of images, a folder a class, into EDM's zip layout."""
    _pack(FolderImages(source), out, size, resize, on_bad_image)


@data.command("hugging-face")
def hugging_face(
    name: Annotated[str, typer.Argument(help="Name of the set on the hub, or the path of a folder.")],
    out: Out,
    *,
    split: Annotated[str, typer.Option(help="Which part of the set.")] = "train",
    image_column: Annotated[str, typer.Option(help="Column of the images.")] = "image",
    label_column: Annotated[str, typer.Option(help="Column of the classes.")] = "label",
    size: Size = None,
    resize: Method = "lanczos",
    on_bad_image: Bad = "fail",
) -> None:
    """Pack a Hugging Face data set into EDM's zip layout."""
    from trainer.data.hugging_face import HuggingFaceImages  # noqa: PLC0415 - it takes seconds

    images = HuggingFaceImages(name, split, image_column, label_column)
    _pack(images, out, size, resize, on_bad_image)


@data.command()
def latents(
    source: Annotated[Path, typer.Argument(help="A .zip of images.", dir_okay=False)],
    out: Out,
    *,
    vae: Annotated[
        str, typer.Option(help="Repository of the Stable Diffusion VAE, or the path of a folder.")
    ] = SdVaeCodec().repository,
    batch: Annotated[int, typer.Option(help="Images in one call of the VAE.", min=1)] = 8,
    device: Annotated[str, typer.Option(help="torch's name of the device.")] = "cpu",
    on_bad_image: Bad = "fail",
) -> None:
    """Encode images once for latent models. Go on with the same command after a kill."""
    images = open_images(DataConfig(path=source, on_bad_image=on_bad_image))
    if not isinstance(images, ZipImages):
        raise DataError(f"{source} is no .zip of images; `data folder` and `data hugging-face` make one")
    with _progress() as progress:
        encoder = SdVaeEncoder(vae, torch.device(device))
        encode_latents(images, encoder, out, batch=batch, progress=progress)
    typer.echo(f"{out}: {len(images)} images, {len(images.class_names)} classes")


@data.command()
def show(file: Annotated[Path, typer.Argument(help="An .npz or .zip.", dir_okay=False)]) -> None:
    """Say what a data set holds."""
    images = open_images(DataConfig(path=file))
    counts = np.bincount(images.labels)
    channels, height, width = images.shape
    typer.echo(f"images    {len(images)}")
    typer.echo(f"shape     {channels} x {height} x {width}")
    typer.echo(f"classes   {len(images.class_names)}")
    for word, label in (("smallest", counts.argmin()), ("largest", counts.argmax())):
        typer.echo(f"{word:9} {label} ({images.class_names[label]}): {counts[label]} images")


def _pack(
    images: Originals, out: Path, size: int | None, resize: ResizeMethod, on_bad_image: OnBadImage
) -> None:
    frame = partial(square, size=size, method=resize)
    with _progress() as progress:
        done = convert(images, out, frame=frame, on_bad_image=on_bad_image, progress=progress)
    for reason in done.skipped[:_NAMED]:
        typer.echo(f"skipped: {reason}", err=True)
    skipped = f", {len(done.skipped)} skipped" if done.skipped else ""
    typer.echo(f"{out}: {done.images} images, {done.classes} classes{skipped}")


def _progress() -> Progress:
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
