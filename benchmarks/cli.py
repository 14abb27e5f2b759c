"""`python -m benchmarks`: measure a running server, engines or training on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import train
from benchmarks.engines import command
from benchmarks.fleet.cli import cli as fleet
from benchmarks.gpu import command as gpu
from benchmarks.gpu.way import WAYS
from benchmarks.serving.cli import cli as serving

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Measure a running server, engines or training on this machine.",
)


cli.add_typer(serving)
cli.add_typer(fleet)


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


Networks = Annotated[
    Path,
    typer.Option(
        exists=True, dir_okay=False, help="TOML file: [denoiser], or [transformer] and [tokenizer]."
    ),
]
Turns = Annotated[int, typer.Option(min=1, help="Timings of each way and case.")]
Threads = Annotated[int, typer.Option(min=1, help="Of each process.")]
Compiled = Annotated[bool, typer.Option("--compile/--no-compile", help="Measure torch.compile too.")]
JsonFile = Annotated[Path | None, typer.Option("--json", dir_okay=False, help="Write the figures here too.")]
Products = Annotated[
    list[int], typer.Option("--product", min=1, help="Sides of the matrices that show the peak.")
]
CORES = os.cpu_count() or 1


@cli.command("engines")
def run_engines(  # noqa: PLR0917 - options
    networks: Networks = command.PUBLISHED,
    turns: Turns = 5,
    threads: Threads = CORES,
    compiled: Compiled = True,
    json_file: JsonFile = None,
    product: Products = list(command.PRODUCTS),  # noqa: B006 - typer reads it and nothing else does
) -> None:
    """Compare our engines with torch, torch.compile, ONNX Runtime and OpenVINO on the same networks."""
    effort = command.Effort(turns, threads, compiled, product)
    command.main(networks, effort, edm=None, var=None, json_file=json_file)


@cli.command("peers")
def run_peers(  # noqa: PLR0917 - options
    edm: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Checkout of NVlabs/edm.")
    ] = None,
    var: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Checkout of FoundationVision/VAR.")
    ] = None,
    networks: Networks = command.PUBLISHED,
    turns: Turns = 5,
    threads: Threads = CORES,
    compiled: Compiled = True,
    json_file: JsonFile = None,
    product: Products = list(command.PRODUCTS),  # noqa: B006 - typer reads it and nothing else does
) -> None:
    """As `engines`, with the reference implementations beside them: your checkouts, run as they are."""
    if edm is None and var is None:
        raise typer.BadParameter("give --edm, --var or both: checkouts of the reference implementations")
    effort = command.Effort(turns, threads, compiled, product)
    command.main(networks, effort, edm=edm, var=var, json_file=json_file)


@cli.command("gpu")
def run_gpu(  # noqa: PLR0917 - options
    device: Annotated[str, typer.Option(help="torch's name: cuda, cuda:1; cpu tries the checks.")] = "cuda",
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the report.")] = Path("gpu-report"),
    backend: Annotated[
        list[str] | None, typer.Option(help="Try this one alone; may be repeated. Default: all.")
    ] = None,
    networks: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="TOML file of networks to fill at random.")
    ] = gpu.NETWORKS,
    batch: Annotated[
        list[int],
        typer.Option(min=1, help="Batch sizes to compare and time."),
    ] = [1, 4, 8],  # noqa: B006 - typer reads it and nothing else does
    turns: Turns = 20,
) -> None:
    """Check and time every backend on a GPU: one command, one report.

    Ends with 0 where nothing failed, with 1 where something did, and with 2 without a GPU.
    """
    ways = [way for way in WAYS if backend is None or way.backend in backend]
    unknown = set(backend or ()) - {way.backend for way in ways}
    if unknown:
        known = ", ".join(dict.fromkeys(way.backend for way in WAYS))
        raise typer.BadParameter(f"no backend {', '.join(sorted(unknown))}; there are {known}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        typer.echo(
            "There is no GPU that torch can use: it takes an NVIDIA driver and a torch with CUDA.", err=True
        )
        raise typer.Exit(2)
    effort = gpu.Effort(device, ways, tuple(batch), turns)
    report = gpu.main(networks, effort, out)
    typer.echo(
        ", ".join(f"{count} {status}" for status, count in report.counts.items()) + f"; see {out}/report.md"
    )
    if report.counts["fail"]:
        raise typer.Exit(1)
