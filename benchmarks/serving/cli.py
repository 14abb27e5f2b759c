"""The commands that measure servers."""

from __future__ import annotations

import ipaddress
import random
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console

from benchmarks.serving import load, overhead
from benchmarks.serving.client import ClientError, Plan
from benchmarks.serving.peers import comparison
from benchmarks.serving.processes import ServerError
from benchmarks.serving.report import Report, ReportError, compare
from benchmarks.serving.targets import command
from benchmarks.serving.targets.bench import Bench
from benchmarks.serving.targets.command import PROMISES, WITH_ANY_MODEL
from benchmarks.serving.traffic import TrafficError, at_once, last_offset, poisson, read_trace

cli = typer.Typer(add_completion=False)

MAX_CONCURRENCY = 1000


class Pace(StrEnum):
    """How requests follow each other."""

    POISSON = "poisson"
    CLOSED = "closed"
    TRACE = "trace"


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


def span(text: str) -> tuple[int, int]:
    """Read `5-30` or `18`: fewest and most."""
    low, _, high = text.partition("-")
    if not low.isdecimal() or not (high or low).isdecimal() or not 1 <= int(low) <= int(high or low):
        raise typer.BadParameter(f"want a number or a range such as 5-30, not {text!r}")
    return int(low), int(high or low)


Url = Annotated[str, typer.Argument(callback=loopback, help="A server on this machine.")]
Model = Annotated[str | None, typer.Option(help="Name of the model; else the server's default.")]
Span = Annotated[str, typer.Option(help="A number, or a range such as 5-30.")]
JsonFile = Annotated[Path | None, typer.Option("--json", dir_okay=False, help="Write the figures here.")]
Seconds = Annotated[float, typer.Option(min=0.5, max=600, help="Of one load.")]
Turns = Annotated[int, typer.Option(min=1, max=50, help="A median of so many is told.")]


@cli.command("overhead")
def run_overhead(
    url: Url = "http://127.0.0.1:8000",
    model: Model = None,
    requests: Annotated[int, typer.Option(min=1, max=10_000)] = 200,
) -> None:
    """Measure what a request costs beyond its engine calls while nothing else runs."""
    overhead.main(url, model, requests)


@cli.command("load")
def run_load(  # noqa: PLR0917 - options
    url: Url = "http://127.0.0.1:8000",
    pace: Annotated[
        Pace,
        typer.Option(
            help="poisson: --rate for --seconds, whether answered or not; closed: --requests, from "
            "--concurrency clients that wait for their answers; trace: as recorded in --trace."
        ),
    ] = Pace.POISSON,
    rate: Annotated[float, typer.Option(min=0.01, max=10_000, help="Requests a second.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=0.1, max=7200)] = 30.0,
    concurrency: Annotated[int, typer.Option(min=1, max=MAX_CONCURRENCY)] = 16,
    requests: Annotated[int, typer.Option(min=1, max=100_000)] = 200,
    trace: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help='Lines of {"offset": SECONDS, "body": {...}}.'),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed sends the same requests.")] = 0,
    model: Model = None,
    steps: Span = "18",
    n: Span = "1",
    cfg: Annotated[list[float], typer.Option(help="Guidance scales, mixed; may be repeated.")] = [1.0],  # noqa: B006
    deadline_ms: Annotated[int | None, typer.Option(min=1)] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Ask for previews too.")] = False,
    objective_ms: Annotated[float, typer.Option(min=0.1, help="Goodput counts answers within it.")] = 1000.0,
    check: Annotated[int, typer.Option(min=0, max=10_000, help="Images compared with the same alone.")] = 20,
    json_file: JsonFile = None,
    plot: Annotated[Path | None, typer.Option(dir_okay=False, help="Pictures of the run, PNG.")] = None,
) -> None:
    """Send requests, report latencies and goodput, and compare images with the same requests alone.

    Latency counts from when a request was due: a server that stalls is not asked less. The command
    fails where an image differs, or where nothing was answered.
    """
    if (pace is Pace.TRACE) != (trace is not None):
        raise typer.BadParameter("--pace trace and --trace FILE go together")
    try:
        if trace is None:
            mix = load.read_mix(url, model, span(steps), n=span(n), cfg=tuple(cfg), deadline_ms=deadline_ms)
            draw = random.Random(seed)
            closed = pace is Pace.CLOSED
            arrivals = (
                at_once(mix, requests=requests, draw=draw)
                if closed
                else poisson(mix, rate=rate, seconds=seconds, draw=draw)
            )
            how = {"clients": concurrency} if closed else {"rate": rate, "seconds": seconds}
            workload = {
                **how,
                "model": mix.model,
                "steps": steps if mix.steps else None,
                "n": n,
                "cfg": cfg,
                "deadline_ms": deadline_ms,
                "seed": seed,
            }
        else:
            arrivals = read_trace(trace)
            workload = {"trace": trace.name, "seconds": last_offset(arrivals)}
        plan = Plan(url, arrivals, concurrency=concurrency if pace is Pace.CLOSED else None, stream=stream)
        report = load.main(
            plan,
            {"pace": pace.value, **workload, "requests": len(arrivals), "stream": stream},
            objective_ms=objective_ms,
            check=check,
            output=load.Output(json_file, plot),
        )
    except (ServerError, TrafficError, ClientError) as error:
        raise typer.BadParameter(str(error)) from None
    if report.checked != report.equal or not report.summary.kinds.get("ok"):
        raise typer.Exit(1)


@cli.command("targets")
def run_targets(  # noqa: PLR0917 - options
    promises: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(PROMISES)}; all that the model allows.")
    ] = None,
    version: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A model version's directory, not the toy model."),
    ] = None,
    seconds: Seconds = 15.0,
    turns: Turns = 3,
    minutes: Annotated[float, typer.Option(min=0.1, max=600, help="Of the soak.")] = 2.0,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Hold a server of its own to its targets: throughput, latency, overload, swaps, leaks, crashes.

    The server runs around a toy model whose calls take 2 ms, or around a version. The command fails where
    a target is missed.
    """
    possible = [name for name in PROMISES if version is None or name in WITH_ANY_MODEL]
    chosen = promises or possible
    if strange := set(chosen) - set(possible):
        raise typer.BadParameter(f"{', '.join(sorted(strange))}: not among {', '.join(possible)}")
    _end_with_servers()
    bench = Bench(seconds=seconds, turns=turns, minutes=minutes, seed=seed, version=version)
    if not command.main(bench, chosen, json_file):
        raise typer.Exit(1)


@cli.command("serve-peers")
def run_serve_peers(
    python: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Interpreter with litserve, bentoml, ray[serve] and mosec."
        ),
    ] = None,
    seconds: Seconds = 15.0,
    turns: Turns = 3,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Compare this server with others around the same toy model: overhead, throughput, latency, waste.

    Without --python only a plain FastAPI batcher is beside it.
    """
    _end_with_servers()
    comparison.main(Bench(seconds=seconds, turns=turns, seed=seed), python, json_file)


@cli.command("compare")
def run_compare(
    first: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    second: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
) -> None:
    """Compare two reports of `load --json`."""
    try:
        Console().print(*compare(Report.read(first), Report.read(second)), sep="\n")
    except ReportError as error:
        raise typer.BadParameter(str(error)) from None


def _end_with_servers() -> None:
    """Let SIGTERM end this process as an exception does, so that the servers it started end too."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
