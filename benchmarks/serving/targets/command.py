"""`python -m benchmarks targets`: measure all promises, or some, and hold them against their targets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks.serving.client import ClientError
from benchmarks.serving.machine import describe_machine, one_line
from benchmarks.serving.processes import ServerError
from benchmarks.serving.targets import abandoned, crash, idle, overload, saturation, soak, steady, swaps
from benchmarks.serving.targets.bench import Bench
from benchmarks.serving.targets.reading import Reading, table

PROMISES: Mapping[str, Callable[[Bench], list[Reading]]] = {
    "saturation": saturation.measure,
    "steady": steady.measure,
    "overload": overload.measure,
    "idle": idle.measure,
    "abandoned": abandoned.measure,
    "swaps": swaps.measure,
    "crash": crash.measure,
    "soak": soak.measure,
}
WITH_ANY_MODEL = ("saturation", "idle")
"""What needs neither the toy model's known cost nor its counts."""


def main(bench: Bench, names: Sequence[str], json_file: Path | None) -> bool:
    """Measure, print and write; return whether all targets were met.

    Args:
        bench: how long and of what.
        names: of `PROMISES`, in the order in which they are measured.
        json_file: where the figures go too.
    """
    console = Console()
    machine = describe_machine()
    console.print(one_line(machine))
    readings: list[Reading] = []
    for name in names:
        with console.status(name):
            try:
                readings += PROMISES[name](bench)
            except (ServerError, ClientError) as error:
                # One promise that cannot be measured loses none of the others' figures.
                readings.append(Reading(name, f"failed: {error}", None, 0))
    different = bench.images.checked - bench.images.equal
    readings += [
        Reading("same image", "images asked for again alone", bench.images.checked),
        Reading("same image", "of these with other bytes", different, 0),
    ]
    console.print(table(readings))
    if json_file is not None:
        figures = [{**asdict(reading), "met": reading.met} for reading in readings]
        json_file.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")
    return all(reading.met for reading in readings)
