"""`python -m models`: convert, pull, list, show and verify models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from models.catalogue import catalogue, find
from models.command_line import group_that_reports
from models.convert import describe, find_files, load_networks, provenance, publish
from models.errors import ModelError
from models.pull import pull as pull_entry
from models.registry import Registry

app = typer.Typer(
    cls=group_that_reports(ModelError), no_args_is_help=True, add_completion=False, help=__doc__
)

RegistryOption = Annotated[
    Path, typer.Option("--registry", help="Folder of the registry.", envvar="DDO_REGISTRY")
]
VersionOption = Annotated[
    int | None, typer.Option("--version", help="Version number; default: the current one.")
]


def _existing(purpose: str) -> Any:
    return typer.Option(help=purpose, exists=True, dir_okay=False)


_REGISTRY = Path("registry")
_DOWNLOADS = Path("downloads")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="EDM or EDM2 .pkl, VAR .pth, or safetensors.")],
    destination: Annotated[Path, typer.Argument(help="Folder of the registry.")] = _REGISTRY,
    *,
    name: Annotated[
        str | None,
        typer.Option(
            "--as", help="Name in the registry; a catalogue name brings classes, defaults and licence."
        ),
    ] = None,
    guide: Annotated[Path | None, typer.Option(help="Checkpoint of the guide network.")] = None,
    vqvae: Annotated[Path | None, typer.Option(help="Checkpoint of VAR's tokenizer.")] = None,
    init: Annotated[Path | None, _existing("JSON file with the constructor arguments.")] = None,
    classes: Annotated[Path | None, _existing("Text file with one class name a line.")] = None,
    licence: Annotated[
        str, typer.Option(help="Licence of weights that no catalogue entry describes.")
    ] = "unknown",
    allow_non_finite: Annotated[bool, typer.Option(help="Accept NaN or infinite weights.")] = False,
) -> None:
    """Convert a checkpoint into a new version of a registry's model and make it current."""
    name = name or _name_of(source)
    given = {key: path for key, path in (("guide", guide), ("vqvae", vqvae)) if path is not None}
    entry = catalogue().get(name)
    files = find_files(source, entry, given) if entry else {"main": source, **given}
    networks = load_networks(files, _read_init(init) if init else None)
    if entry:
        spec = entry.spec()
    else:
        spec = describe(name, networks, classes.read_text().splitlines() if classes else (), licence)
    version = publish(
        spec,
        networks,
        Registry(destination),
        source=provenance((path.name, path) for path in files.values()),
        allow_non_finite=allow_non_finite,
    )
    typer.echo(
        f"{name} version {version.number} is in {version.directory}; licence of the weights: {spec.licence}"
    )


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Name in the catalogue.")],
    registry: RegistryOption = _REGISTRY,
    downloads: Annotated[Path, typer.Option(help="Folder for files from plain web servers.")] = _DOWNLOADS,
) -> None:
    """Download a published model, convert it and make it current."""
    version = pull_entry(find(name), Registry(registry), downloads, Console(stderr=True))
    typer.echo(f"{name} version {version.number} is in {version.directory}; licence: {version.spec.licence}")


@app.command(name="list")
def list_models(registry: RegistryOption = _REGISTRY) -> None:
    """List the registry's models and the catalogue."""
    models, published = Registry(registry), catalogue()
    table = Table("name", "current", "versions", "licence", "about", box=None)
    for name in [*models.names(), *(name for name in published if name not in models.names())]:
        current, versions = models.current(name), models.versions(name)
        licence = models.open(name, versions[-1]).spec.licence if versions else published[name].licence
        about = published[name].title if name in published else ""
        table.add_row(name, str(current or "-"), str(len(versions)), licence, about)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@app.command()
def show(name: str, version: VersionOption = None, registry: RegistryOption = _REGISTRY) -> None:
    """Print a model's model.json, or its catalogue entry if it is not in the registry."""
    models = Registry(registry)
    content: BaseModel = models.open(name, version).spec if models.versions(name) else find(name)
    typer.echo(content.model_dump_json(indent=2))


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="Default: every version of every model.")] = None,
    version: VersionOption = None,
    registry: RegistryOption = _REGISTRY,
) -> None:
    """Compare the files of versions with their recorded sizes and SHA-256."""
    models = Registry(registry)
    if name is None:
        chosen: list[tuple[str, int | None]] = [
            (each, number) for each in models.names() for number in models.versions(each)
        ]
    else:
        chosen = [(name, version)]
    for each, number in chosen:
        checked = models.verify(each, number)
        typer.echo(f"{each} version {checked.number}: {len(checked.spec.files)} files as published")


def _name_of(source: Path) -> str:
    published = [entry.name for entry in catalogue().values() if entry.files["main"].file == source.name]
    return published[0] if published else source.stem.lower().replace(" ", "-")


def _read_init(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold a JSON object")
    return content
