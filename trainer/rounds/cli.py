"""`python -m trainer ddo` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from models.registry import Registry
from trainer.config import load_config
from trainer.rounds.config import RoundsConfig
from trainer.rounds.publication import label_of
from trainer.rounds.report import REPORT_FILE, write_report
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


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of the run.", exists=True, file_okay=False)],
    out: Annotated[
        Path | None, typer.Option(help="HTML file; report.html in the run's folder if left out.")
    ] = None,
) -> None:
    """Write a page on a run of rounds, finished or not: figures, curves, images before and after."""
    path = out or run / REPORT_FILE
    write_report(run, path)
    typer.echo(str(path))
