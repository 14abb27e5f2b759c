"""`python -m trainer`: build data sets, train and evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from engines.errors import EngineError, InvalidRequestError
from models.command_line import group_that_reports
from models.errors import ModelError
from trainer.config import PretrainConfig, load_config
from trainer.data.cli import data
from trainer.data.open import open_images
from trainer.errors import TrainerError
from trainer.evaluation.cli import app as evaluation
from trainer.evaluation.evaluate import Evaluation
from trainer.rounds.cli import app as rounds
from trainer.training.processes import Processes
from trainer.training.runner import training_progress, watch
from trainer.versions import publish_run

app = typer.Typer(
    cls=group_that_reports(TrainerError, ModelError, EngineError, InvalidRequestError),
    no_args_is_help=True,
    add_completion=False,
    help=__doc__,
)

app.add_typer(data, name="data")
app.add_typer(evaluation)
app.add_typer(rounds)


def _progress() -> Progress:
    return Progress(console=Console(stderr=True))


@app.command()
def pretrain(
    config: Annotated[Path, typer.Argument(help="TOML file of the run.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder of the run; one that exists is resumed.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train EDM, EDM2, VAR or VAR's tokenizer by maximum likelihood; alone or under torchrun."""
    settings = load_config(config, PretrainConfig)
    with (
        Processes.join(device) as processes,
        training_progress(disable=not processes.leads) as progress,
    ):
        watch(settings, out, processes, progress)
    if processes.leads:
        typer.echo(f"{out}: {settings.training.images} images")


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
    """Publish a finished run's moving average as a model version."""
    settings = load_config(config, PretrainConfig)
    try:
        figures = Evaluation.model_validate_json(metrics.read_bytes()) if metrics else None
    except ValidationError as error:
        raise TrainerError(f"{metrics} is not a file of `evaluate`: {error.errors()[0]['msg']}") from error
    with _progress() as progress:
        version = publish_run(
            settings,
            run,
            class_names=open_images(settings.data).class_names,
            metrics=figures.metrics() if figures else {},
            registry=registry,
            directory=directory,
            progress=progress,
        )
    typer.echo(str(version.directory))
