"""`python -m trainer`: build data sets, train and evaluate."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress

from engines import EngineSettings, load
from engines.base import Engine
from engines.errors import EngineError, InvalidRequestError
from models.command_line import group_that_reports
from models.errors import ModelError
from models.version import open_version
from trainer.config import load_config
from trainer.data.emoji import EmojiImages, build_emoji, emoji_classes, emoji_styles
from trainer.data.npm import TarballStore
from trainer.errors import TrainerError
from trainer.evaluation.evaluate import Evaluation, SamplingPlan
from trainer.evaluation.evaluate import evaluate as judge
from trainer.evaluation.features import EfficientNetLite0
from trainer.grid import contact_sheet
from trainer.publish import publish_run
from trainer.training.runner import training_progress, watch

app = typer.Typer(
    cls=group_that_reports(TrainerError, ModelError, EngineError, InvalidRequestError),
    no_args_is_help=True,
    add_completion=False,
    help=__doc__,
)
_PACKAGES = Path("data/npm")

data = typer.Typer(no_args_is_help=True, help="Build data sets.")
app.add_typer(data, name="data")


def _progress() -> Progress:
    return Progress(console=Console(stderr=True))


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


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Directory of a model version.", file_okay=False)],
    data: Annotated[Path, typer.Option(help="The .npz of `data emoji`.", exists=True, dir_okay=False)],
    *,
    images: Annotated[int, typer.Option(help="How many to generate, classes in turn.", min=2)] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the first image; each further one adds 1.", min=0)] = 0,
    steps: Annotated[int | None, typer.Option(help="Default: the model's.", min=1)] = None,
    solver: Annotated[str | None, typer.Option(help="Default: the model's.")] = None,
    cfg: Annotated[float, typer.Option(help="Guidance scale; 1 is none.")] = 1.0,
    rows: Annotated[int, typer.Option(help="Images in one engine call.", min=1)] = 16,
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Also draw the first image of each class on this PNG.")
    ] = None,
) -> None:
    """Generate images with a model and compare them with the real ones."""
    emoji_images = EmojiImages.load(data)
    version = open_version(model)
    weights = version.spec.files[version.spec.networks["main"].weights]
    plan = SamplingPlan(images=images, seed=seed, steps=steps, solver=solver, cfg=cfg)
    engine: Engine[Any] = load(version, EngineSettings(max_rows=rows))
    with _progress() as progress:
        evaluation, generated = judge(
            engine,
            emoji_images,
            plan,
            EfficientNetLite0(torch.device("cpu")),
            model=f"{version.spec.name} sha256:{weights.sha256}",
            progress=progress,
        )
    figures = evaluation.model_dump_json(indent=2)
    typer.echo(figures)
    if out is not None:
        out.write_text(figures + "\n")
    if sheet is not None:
        contact_sheet(generated[: len(emoji_images.class_names)], columns=16, scale=2).save(sheet)


@app.command()
def pretrain(
    config: Annotated[Path, typer.Argument(help="TOML file of the run.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder of the run; one that exists is resumed.")],
) -> None:
    """Train a denoiser by maximum likelihood."""
    settings = load_config(config)
    with training_progress() as progress:
        run = watch(settings, out, progress)
    typer.echo(f"{out}: {run.seen} images")


@app.command()
def publish(
    config: Annotated[Path, typer.Argument(help="TOML file of the run.", exists=True, dir_okay=False)],
    run: Annotated[Path, typer.Argument(help="Folder of the run.", exists=True, file_okay=False)],
    registry: Annotated[Path, typer.Option(help="Registry that gets a new version.")] = Path("registry"),
    directory: Annotated[
        Path | None, typer.Option(help="Write the version into this folder, outside a registry.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="JSON file of `evaluate`, for the record.", exists=True)
    ] = None,
) -> None:
    """Publish a run's moving average as a model version."""
    figures = Evaluation.model_validate_json(metrics.read_text()) if metrics else None
    with _progress() as progress:
        version = publish_run(
            load_config(config),
            run,
            registry=registry,
            directory=directory,
            figures=figures,
            progress=progress,
        )
    typer.echo(str(version.directory))
