"""`python -m server`: serve models over HTTP."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import structlog
import typer
from pydantic import ValidationError

import engines
from engines.base import Engine
from engines.settings import EngineSettings
from models.errors import ModelError
from models.references import parse_reference
from models.version import ModelVersion
from server import logs
from server.access.cli import key_cli
from server.app import create_app
from server.generation.cli import generate
from server.run import run
from server.settings import load_settings
from server.tracing.exporting import open_tracing

cli = typer.Typer(add_completion=False)
cli.add_typer(key_cli, name="key")
cli.command()(generate)


@cli.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(envvar="DDO_CONFIG", exists=True, dir_okay=False, help="TOML file with settings."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="NAME, NAME/2 or NAME/all of the registry, or a directory; may be repeated."),
    ] = None,
) -> None:
    """Serve models over HTTP; every setting is also a DDO_ variable of the environment."""
    if context.invoked_subcommand is not None:
        return
    options = {"host": host, "port": port, "models": tuple(model) if model else None}
    try:
        settings = load_settings(
            config, **{key: value for key, value in options.items() if value is not None}
        )
    except ValidationError as error:
        raise typer.BadParameter(str(error)) from None
    logs.configure(settings.log_level, sys.stderr)
    log = structlog.get_logger(__name__)
    log.info("settings", **settings.model_dump(mode="json"))
    try:
        references = [parse_reference(name, settings.registry) for name in settings.models]
        versions = [version for reference in references for version in reference.open()]
        app = create_app(settings, versions, _load, references, open_tracing(os.environ))
    except (ModelError, ValueError) as error:
        log.error("cannot serve", reason=str(error))
        raise typer.Exit(1) from None
    answered = run(app, settings)
    log.info("ended", answered_all=answered)
    _leave(0 if answered else 1)


def _leave(code: int) -> NoReturn:
    """End the process at once: a thread that loads a model would come back while Python ends and abort it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _load(version: ModelVersion, settings: EngineSettings) -> Engine[Any]:
    """Load an engine; with the first one comes torch, so that the server answers before it is there."""
    return engines.load(version, settings)
