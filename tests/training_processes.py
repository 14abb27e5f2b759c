"""What torchrun starts twice: the same small runs as one process makes, `ONE TWO`.

Folder ONE holds states that one process made, for the two to go on from. In folder TWO each process leaves
what it saw as `RANK.json`, and the run's state lies where its process wrote it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tiny_runs import losses, tiny_loop
from torch.profiler import ProfilerActivity, profile

from trainer.errors import TrainerError
from trainer.training.processes import Processes

SETTINGS: Mapping[str, Any] = {
    "microbatch": 2,
    "averages": [{"kind": "power", "std": 0.1}],
    "checkpoint_seconds": 1e6,
}
RUNS: Mapping[str, Mapping[str, Any]] = {
    "edm": {"kind": "edm"},
    "edm2": {"kind": "edm2"},
    "edm2-certain": {"kind": "edm2", "uncertain": False},  # its uncertainty gets no gradient
    "var": {"kind": "var"},
}
SHARDINGS = ("replicate", "shard")
HALF = 24


def exchanges(directory: Path, processes: Processes, sharding: str, microbatch: int) -> int:
    """Return how many times a step sums over the processes."""
    settings = {**SETTINGS, "microbatch": microbatch, "report_steps": 100}
    loop = tiny_loop(directory, "edm", processes, sharding=sharding, **settings)
    losses(loop, until=8)  # DDP arranges its buckets in the first step
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        losses(loop, until=16)
    names = [event.name for event in profiled.events()]
    return sum(name.startswith("gloo:") and "reduce" in name for name in names)


def refusal(directory: Path, **settings: Any) -> str:
    """Return why the loop cannot be made."""
    try:
        tiny_loop(directory, **settings)
    except TrainerError as error:
        return str(error)
    return "none"


def main(one: Path, two: Path) -> None:
    seen: dict[str, Any] = {}
    with Processes.join() as processes:
        for sharding in SHARDINGS:
            for name, run in RUNS.items():
                # Each process has a folder of its own, so that it shows what each of them writes.
                own = two / str(processes.rank) / sharding / name
                own.mkdir(parents=True)
                loop = tiny_loop(own, processes=processes, sharding=sharding, **run, **SETTINGS)
                seen[f"{sharding}/{name}"] = losses(loop)
                weights = loop.weights("power-0.100")
                seen[f"{sharding}/{name}/weights"] = sum(w.double().norm().item() for w in weights.values())
            resumed = tiny_loop(one / sharding, "edm2", processes, sharding=sharding, **SETTINGS)
            seen[f"{sharding}/resumed"] = losses(resumed)
            for microbatch in (4, 1):
                (empty := two / str(processes.rank) / sharding / str(microbatch)).mkdir()
                key = f"{sharding}/exchanges/{microbatch}"
                seen[key] = exchanges(empty, processes, sharding, microbatch)
        apart = two / str(processes.rank) / "replicate" / "edm"  # process 1 has saved no state there
        seen["uneven"] = refusal(two, processes=processes, batch=12, microbatch=4)
        seen["apart"] = refusal(apart, processes=processes, **SETTINGS)
    (two / f"{processes.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
