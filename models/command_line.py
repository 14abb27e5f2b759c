"""How every command of the project ends when something is wrong: one line and exit code 1."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup


def group_that_reports(*errors: type[Exception]) -> type[TyperGroup]:
    """Return the class of a typer group whose commands report these errors in place of a traceback."""

    class ReportingGroup(TyperGroup):
        def invoke(self, ctx: Any) -> Any:
            try:
                return super().invoke(ctx)
            except errors as error:
                typer.echo(f"error: {error}", err=True)
                raise typer.Exit(1) from error

    return ReportingGroup
