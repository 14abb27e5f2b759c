"""`python -m trainer ddo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from models.registry import Registry
from trainer.config import load_config
from trainer.rounds.config import RoundsConfig
from trainer.rounds.publication import label_of
from trainer.rounds.run import Run
from trainer.rounds.view import View
from trainer.training.processes import Processes

app = typer.Typer()


@app.command()
def ddo(
    config: Annotated[Path, typer.Argument(help="TOML file of the run.", exists=True, dir_okay=False)],
    out: Annotated[
        Path, typer.Option(help="Folder of the run; one that exists is resumed.", file_okay=False)
    ],
    registry: Annotated[
        Path, typer.Option(help="Registry of the parent and of what is published.", file_okay=False)
    ] = Path("registry"),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Fine-tune a model in rounds against its own images, by DDO or Neon; alone or under torchrun."""
    settings = load_config(config, RoundsConfig)
    with Processes.join(device) as processes:
        view = View(silent=not processes.leads)
        with view.progress:
            best = Run(settings, out, Registry(registry), processes, view).run()
        if processes.leads:
            typer.echo(f"{out}: the best version is {label_of(best)}")
