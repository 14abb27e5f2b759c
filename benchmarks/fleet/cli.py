"""The commands that size fleets."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.fleet.profile import DeviceProfile, ProfileError
from benchmarks.fleet.simulation import Simulation, Workload
from benchmarks.fleet.sizing import Goal, GoalError, Plan, Sizing
from benchmarks.serving.report import Report, ReportError, compare
from benchmarks.serving.summary import summarize
from engines import EngineSettings, load
from engines.base import ImageRequest
from engines.errors import EngineError, InvalidRequestError
from models.errors import ModelError
from models.version import open_version
from server.settings import Settings, load_settings

cli = typer.Typer(add_completion=False)

File = typer.Argument(exists=True, dir_okay=False, help="Of `benchmarks profile`.")


@cli.command("profile")
def run_profile(  # noqa: PLR0917 - options
    version: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A model version.")],
    out: Annotated[Path, typer.Argument(dir_okay=False, help="JSON file to write.")],
    device: Annotated[str, typer.Option(help="torch's name: cpu, cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Of the device; all cores.")] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Most rows of a call.")] = 8,
    steps: Annotated[int | None, typer.Option(min=1, help="Of a diffusion model; its default.")] = None,
    cfg: Annotated[float, typer.Option(help="Guidance scale.")] = 1.0,
    answer_ms: Annotated[
        float, typer.Option(min=0, help="Of an answer beyond its engine calls: see `overhead`.")
    ] = 3.0,
) -> None:
    """Measure what engine calls of a model cost on this device, and write it for `simulate`."""
    try:
        opened = open_version(version)
        engine = load(opened, EngineSettings(device=device, threads=threads, max_rows=max_rows))
        class_id = 0 if opened.spec.class_names else None
        request = ImageRequest(class_id=class_id, seed=0, steps=steps, cfg=cfg)
        profile = DeviceProfile.measure(engine, request, model=opened.spec.name, device=device)
    except (EngineError, InvalidRequestError, ModelError) as error:
        raise typer.BadParameter(str(error)) from None
    profile = profile.model_copy(update={"answer_s": answer_ms / 1000})
    out.write_text(profile.model_dump_json(indent=2) + "\n")
    typer.echo(f"{profile.best_rate:.2f} images a second at most; one alone takes {profile.seconds(1):.3f} s")


@cli.command("simulate")
def run_simulate(  # noqa: PLR0917 - options
    profile: Annotated[Path, File],
    images_per_minute: Annotated[
        list[float], typer.Option("--images", min=1, help="A minute; may be repeated.")
    ] = [1e3, 1e4, 1e5, 1e6],  # noqa: B006 - typer reads it and nothing else does
    within_ms: Annotated[float, typer.Option(min=1, help="In which an image is wanted.")] = 2000.0,
    share: Annotated[float, typer.Option(min=0.5, max=1.0, help="Of images that come in time.")] = 0.99,
    domain: Annotated[int, typer.Option(min=0, help="Devices that die together meanwhile.")] = 0,
    cell: Annotated[int, typer.Option(min=1, help="Most devices behind one router.")] = 16,
    price: Annotated[float, typer.Option(min=0, help="Of a device for an hour, in any currency.")] = 0.0,
    devices: Annotated[
        int | None, typer.Option(min=1, help="With --against: how many were measured.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Report of `load --json` on a fleet, to compare with."
        ),
    ] = None,
    seed: int = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write figures here.")
    ] = None,
) -> None:
    """Tell how many devices a fleet needs and what it costs, or hold the simulation against a measurement.

    Every device runs the server's own scheduler and admission, configured as a server here would be
    (`DDO_POLICY`, `DDO_QUEUE_ROWS`); the router is that of `server.ray`. While each simulation runs, one
    failure domain of each cell dies and its requests are made elsewhere.
    """
    if (devices is None) != (against is None):
        raise typer.BadParameter("--against REPORT and --devices NUMBER go together")
    console, settings = Console(), load_settings()
    try:
        device = DeviceProfile.read(profile)
        if devices is not None and against is not None:
            measured = Report.read(against)
            console.print(*compare(measured, _again(measured, device, devices, settings, seed)), sep="\n")
            return
        goal = Goal(within_s=within_ms / 1000, share=share, domain=domain, cell=cell)
        sizing = Sizing(device, settings, goal, seed)
        plans = [sizing.plan(images) for images in images_per_minute]
    except (ProfileError, ReportError, GoalError) as error:
        raise typer.BadParameter(str(error)) from None
    console.print(_table(plans, price))
    if json_file is not None:
        figures = {"profile": device.model_dump(), "goal": asdict(goal), "plans": [asdict(p) for p in plans]}
        json_file.write_text(json.dumps(figures, indent=2) + "\n")


def _again(measured: Report, device: DeviceProfile, devices: int, settings: Settings, seed: int) -> Report:
    """Simulate what a measured fleet was asked for."""
    asked = measured.workload
    if "rate" not in asked or asked.get("n") != "1":
        raise ReportError("only `load --pace poisson --n 1` is simulated")
    deadline_ms = asked["deadline_ms"] or settings.deadline_ms
    workload = Workload(
        rate=asked["rate"],
        seconds=asked["seconds"],
        deadline_s=deadline_ms / 1000,
        promised=asked["deadline_ms"] is not None,
    )
    run = Simulation(device, devices, settings, random.Random(seed)).run(workload)
    return Report(measured.machine, asked, summarize(run.outcomes, measured.summary.objective_ms))


def _table(plans: list[Plan], price: float) -> Table:
    columns = ("images a minute", "cells", "devices", "in calls", "p50, ms", "p95, ms", "p99, ms")
    table = Table(*columns, "in time", "retried", *(["1000 images cost"] if price else []))
    for plan in plans:
        times = (f"{plan.latency_ms[name]:.0f}" for name in ("p50", "p95", "p99"))
        cost = [f"{plan.cost(price):.4f}"] if price else []
        table.add_row(
            f"{plan.images_per_minute:,.0f}",
            f"{plan.cells}",
            f"{plan.devices}",
            f"{plan.utilisation:.0%}",
            *times,
            f"{plan.answered:.2%}",
            f"{plan.retried:.2%}",
            *cost,
        )
    return table
