"""`python -m server key`: make API keys."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from server.access.keys import KeyId, StoredKey, digest_of, new_key

key_cli = typer.Typer(help="Make API keys.", no_args_is_help=True)


@key_cli.callback()
def keys() -> None:
    """Make API keys."""


@key_cli.command()
def new(
    id: Annotated[str, typer.Option(help="Name of the key: letters, digits, - and _.")],
    admin: Annotated[bool, typer.Option("--admin", help="Open the routes under /admin too.")] = False,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Requests for images in progress at one time.")
    ] = None,
    images_per_minute: Annotated[int | None, typer.Option(min=1, help="Images in any minute.")] = None,
) -> None:
    """Print a new key, once, and what the file of keys has to hold of it."""
    try:
        TypeAdapter(KeyId).validate_python(id)
    except ValidationError:
        raise typer.BadParameter(f"{id!r} is not 1 to 64 letters, digits, - and _") from None
    key = new_key()
    stored = StoredKey(
        sha256=digest_of(key), admin=admin, concurrency=concurrency, images_per_minute=images_per_minute
    )
    typer.echo("# The key. It is shown this once; whoever has it is let in.", err=True)
    typer.echo(key)
    typer.echo("\n# For the file that DDO_ACCESS__KEYS names:", err=True)
    typer.echo(_entry(id, stored), err=True)


def _entry(id: str, key: StoredKey) -> str:
    lines = [f"[keys.{id}]", f'sha256 = "{key.sha256}"']
    if key.admin:
        lines.append("admin = true")
    lines += [
        f"{name} = {value}"
        for name in ("concurrency", "images_per_minute")
        if (value := getattr(key, name)) is not None
    ]
    return "\n".join(lines)
