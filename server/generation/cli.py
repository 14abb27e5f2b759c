"""The command `generate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import engines
from engines.base import Engine
from engines.settings import EngineSettings
from models.version import ModelVersion
from server import logs
from server.api.schemas import Sampling
from server.generation.files import SUFFIXES, write_files, write_grid
from server.generation.local import make_locally
from server.generation.order import GenerationError, Made, Order
from server.image_format import ImageFormat
from server.sampling import MAX_SEED
from server.settings import load_settings


def generate(
    *,
    class_name: Annotated[str | None, typer.Option("--class", help="Class by name or number.")] = None,
    n: Annotated[int, typer.Option(min=1, help="How many images.")] = 1,
    grid: Annotated[
        Path | None, typer.Option(help="One picture of all images: a .png, .webp or .jpg.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for a file each; without --grid it is this one."),
    ] = None,
    format: Annotated[ImageFormat, typer.Option(help="Of the files in the folder.")] = ImageFormat.PNG,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the first image; image i has seed + i. Else drawn.")
    ] = None,
    cfg: Annotated[float, typer.Option(help="Guidance scale; 1 is none.")] = 1.0,
    steps: Annotated[int | None, typer.Option(help="Sampler steps (EDM, EDM2).")] = None,
    solver: Annotated[str | None, typer.Option(help="Sampler (EDM, EDM2).")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of token sampling (VAR).")] = None,
    top_k: Annotated[int | None, typer.Option(help="Keep the k best tokens (VAR).")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus (VAR).")] = None,
    model: Annotated[
        str | None, typer.Option(help="A served model; without --url also a registry's or a directory.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=0, help="Else the current one.")] = None,
    url: Annotated[
        str | None, typer.Option(help="A server that makes them; without one this process does.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="DDO_API_KEY", show_envvar=True, help="For that server.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(envvar="DDO_CONFIG", exists=True, dir_okay=False, help="TOML file with settings."),
    ] = None,
) -> None:
    """Make images of a class and write them to files, through a server or without one."""
    if grid is not None and grid.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"{grid} has to end in {', '.join(SUFFIXES)}", param_hint="--grid")
    if (seed or 0) + n - 1 > MAX_SEED:
        raise typer.BadParameter(f"the last image's seed would be more than {MAX_SEED}", param_hint="--seed")
    settings: dict[str, Any] = {"cfg": cfg, "steps": steps, "solver": solver, "temperature": temperature}
    settings |= {"top_k": top_k, "top_p": top_p, "model": model, "version": version}
    to_files = out is not None or grid is None
    try:
        order = Order(
            class_name=class_name,
            n=n,
            seed=seed,
            sampling=Sampling(**settings),
            format=format if to_files else ImageFormat.PNG,
        )
        made = _make(order, url, api_key, config)
        paths = write_files(made, out or Path(), format) if to_files else []
        if grid is not None:
            write_grid(made.images, grid)
            paths.append(grid)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise typer.BadParameter(wrong) from None
    except (GenerationError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    first, last = made.images[0].seed, made.images[-1].seed
    seeds = f"seed {first}" if first == last else f"seeds {first} to {last}"
    typer.echo(f"{made.class_name or 'images'}, {made.model}, {seeds}", err=True)
    for path in paths:
        typer.echo(path)


def _make(order: Order, url: str | None, api_key: str | None, config: Path | None) -> Made:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        if url is None:
            logs.configure("warning", sys.stderr)
            return make_locally(order, load_settings(config), _load, progress)
        try:
            from server.generation.remote import make_remotely  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise GenerationError(f"--url needs {error.name}: pip install 'ddo-serve[client]'") from error
        return make_remotely(order, url, api_key, progress)


def _load(version: ModelVersion, settings: EngineSettings) -> Engine[Any]:
    return engines.load(version, settings)
