"""One model in one way, in a process of its own: what a fault does to the GPU ends with it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import checks
from benchmarks.gpu.images import requests_of, results
from benchmarks.gpu.outcome import Figures, Outcome, SkippedError, attempt
from benchmarks.gpu.way import Way
from engines.cuda import CudaDevice
from engines.export.onnx import OnnxCache
from engines.loading import load
from engines.settings import EngineSettings
from engines.tensorrt.api import tensorrt
from engines.tensorrt.build import Workshop
from engines.tensorrt.builder import Target
from engines.tensorrt.record import Precision
from engines.tensorrt.store import EngineStore
from engines.version_programs import programs_of
from models.frozen import FrozenModel
from models.spec import DiffusionDefaults
from models.version import ModelVersion, open_version


class Trial(FrozenModel):
    """What to try.

    Attributes:
        version: directory of the model.
        way: how it is run; None: nothing but what the CPU makes of it in float32, for the others.
        device: torch's name.
        batches: batch sizes to compare and time; the largest is the most of a call.
        turns: timings of each.
        folder: for engines, caches and the CPU's results.
    """

    version: Path
    way: Way | None
    device: str
    batches: tuple[int, ...]
    turns: int
    folder: Path

    @property
    def exact(self) -> Path:
        """The file of the CPU's results."""
        return self.folder / f"{self.version.parent.parent.name}-{self.version.name}.npy"


def run(trial: Trial) -> list[Outcome]:
    """Make all checks of a trial; what needs an engine is left out where it does not load."""
    version = open_version(trial.version)
    if trial.way is None:
        return [attempt("reference on the CPU", lambda: _write_exact(version, trial))]
    way, device = trial.way, torch.device(trial.device)
    settings = way.settings(trial.device, max(trial.batches), trial.folder)
    outcomes = []
    if way.backend == "tensorrt":
        outcomes.append(attempt("build", lambda: _build(version, way, settings)))
    loaded: list[Any] = []
    outcomes.append(attempt("load", lambda: _load(version, settings, device, loaded)))
    if not loaded:
        return outcomes
    (engine,) = loaded
    named: dict[str, Callable[[], Figures]] = {
        "agrees with the CPU": lambda: checks.agrees(engine, version, way.precision, trial.exact),
        "same bits in any batch": lambda: checks.same_in_any_batch(engine, version, trial.batches),
        "same bits again": lambda: checks.repeats(engine, version),
        "golden image": lambda: checks.golden(engine, version),
        "times": lambda: checks.times(engine, version, device, batches=trial.batches, turns=trial.turns),
    }
    if way.backend == "torch" and isinstance(version.spec.defaults, DiffusionDefaults):
        dtype = getattr(torch, way.precision)
        named["CUDA graphs replay the same bits"] = lambda: checks.graphs_replay(
            version, dtype, _graphs_on(device), batches=trial.batches, turns=trial.turns
        )
    outcomes += [attempt(name, check) for name, check in named.items()]
    if device.type == "cuda":
        outcomes.append(attempt("memory", lambda: {"peak MB": torch.cuda.max_memory_allocated(device) / 1e6}))
    return outcomes


def _graphs_on(device: torch.device) -> CudaDevice:
    if device.type != "cuda":
        raise SkippedError(f"CUDA graphs need an NVIDIA GPU, not {device}")
    return CudaDevice(device)


def _write_exact(version: ModelVersion, trial: Trial) -> Figures:
    exact = EngineSettings(backend="torch", precision="float32", max_rows=2, cache=trial.folder / "cache")
    engine = load(version, exact)
    np.save(trial.exact, results(engine, requests_of(version, 2)))
    return {}


def _load(
    version: ModelVersion, settings: EngineSettings, device: torch.device, loaded: list[Any]
) -> Figures:
    started = time.perf_counter()
    engine = load(version, settings)
    seconds = time.perf_counter() - started
    loaded.append(engine)
    sizes = {f"calls of {kind}, batch sizes": float(len(costs)) for kind, costs in engine.costs.items()}
    return {"s": seconds, **sizes}


def _build(version: ModelVersion, way: Way, settings: EngineSettings) -> Figures:
    api = tensorrt()
    shop = Workshop(
        api=api, exports=OnnxCache(settings.compiled / "onnx"), store=EngineStore(settings.compiled)
    )
    precision: Precision = "fp16" if way.precision == "float16" else "bf16"
    figures: Figures = {}
    for program in programs_of(version, getattr(torch, way.precision), max_rows=settings.max_rows):
        made = shop.make(version, program, precision=precision, target=Target.of(api, ()))
        figures[f"{program.name}, s"] = made.record.seconds
        figures[f"{program.name}, MB"] = made.record.size / 1e6
    return figures


if __name__ == "__main__":
    for outcome in run(Trial.model_validate_json(sys.argv[1])):
        print(outcome.model_dump_json())
