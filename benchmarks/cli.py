"""`python -m benchmarks`: measure a running server, or training, on this machine."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from benchmarks import load, overhead, train

cli = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Measure a running server, or training, on this machine."
)


def loopback(url: str) -> str:
    """Return the URL without its last slash; refuse any that leads off this machine."""
    host = urlsplit(url).hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if urlsplit(url).scheme != "http" or not local:
        raise typer.BadParameter("only http:// on this machine: 127.0.0.1, ::1 or localhost")
    return url.rstrip("/")


Url = Annotated[str, typer.Option(callback=loopback, help="A server on this machine.")]
Model = Annotated[str | None, typer.Option(help="Name of the model; else the server's default.")]


@cli.command("overhead")
def run_overhead(
    url: Url = "http://127.0.0.1:8000",
    model: Model = None,
    requests: Annotated[int, typer.Option(min=1, max=10_000)] = 200,
) -> None:
    """Measure what a request costs beyond its engine calls while nothing else runs."""
    overhead.main(url, model, requests)


@cli.command("load")
def run_load(
    url: Url = "http://127.0.0.1:8000",
    model: Model = None,
    requests: Annotated[int, typer.Option(min=1, max=1000, help="All of them at once.")] = 200,
    max_steps: Annotated[int, typer.Option(min=1, max=100, help="Steps are 1 to this, mixed.")] = 18,
    check: Annotated[bool, typer.Option(help="Ask for each again alone and compare the bytes.")] = True,
) -> None:
    """Send many different requests at once and compare each image with the same request alone."""
    if not load.main(url, model, requests=requests, max_steps=max_steps, check=check):
        raise typer.Exit(1)


@cli.command("train")
def run_train(
    config: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="TOML file with an EDM [network].")
    ] = train.EMOJI,
    pairs: Annotated[int, typer.Option(min=1, help="Real images of a step, and as many fakes.")] = 32,
    repetitions: Annotated[int, typer.Option(min=1, help="Measured steps of each way.")] = 7,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Measure the compiled step too.")
    ] = True,
) -> None:
    """Compare a DDO step of the trainer with a plain eager loop: speed, and that gradients are the same."""
    if not train.main(config, pairs=pairs, repetitions=repetitions, compiled=compiled):
        raise typer.Exit(1)
