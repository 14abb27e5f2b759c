"""`python -m server.ray`: serve on the Ray cluster that this machine belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import ray
import typer
from pydantic import ValidationError
from ray import serve

from server.ray.application import build
from server.ray.settings import RaySettings
from server.settings import load_settings


def main(
    config: Annotated[
        Path | None,
        typer.Option(envvar="DDO_CONFIG", exists=True, dir_okay=False, help="TOML file with settings."),
    ] = None,
) -> None:
    """Serve models on a Ray cluster; settings are those of `python -m server`, and DDO_RAY_ variables."""
    try:
        settings, cluster = load_settings(config), RaySettings()
    except ValidationError as error:
        raise typer.BadParameter(str(error)) from None
    ray.init(address=cluster.address, log_to_driver=False)
    options = {"host": settings.host, "port": settings.port}
    serve.start(proxy_location="EveryNode", http_options=options)
    serve.run(build(settings, cluster), name="ddo-serve", blocking=True)


if __name__ == "__main__":
    typer.run(main)
