"""`python -m benchmarks gpu`: every model in every way, and a report."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console

import benchmarks
from benchmarks.engines.subjects import write_denoiser, write_var
from benchmarks.gpu.outcome import Outcome
from benchmarks.gpu.report import Report, Tried
from benchmarks.gpu.trial import Trial
from benchmarks.gpu.way import Way
from models.version import open_version
from server.settings import BUNDLED

NETWORKS = Path(benchmarks.__file__).parent / "configs" / "gpu.toml"
PACKAGES = ("torch", "triton", "tensorrt", "tensorrt-rtx-cu13", "torch-tensorrt", "onnx", "numpy")


@dataclass(frozen=True)
class Effort:
    """What is tried.

    Attributes:
        device: torch's name.
        ways: how each model is run.
        batches: batch sizes to compare and time.
        turns: timings of each.
    """

    device: str
    ways: Sequence[Way]
    batches: tuple[int, ...]
    turns: int


def main(networks: Path, effort: Effort, out: Path) -> Report:
    """Try the bundled models and those of a file, and write the report.

    Args:
        networks: TOML; a table is a denoiser's constructor arguments, `transformer` and `tokenizer` a VAR's.
        effort: what is tried.
        out: folder of `report.md` and `report.json`.
    """
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        report = try_all(_models(networks, folder), effort, folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(report.model_dump_json(indent=2) + "\n")
    (out / "report.md").write_text(report.markdown())
    return report


def try_all(models: Iterable[tuple[str, Path]], effort: Effort, folder: Path) -> Report:
    """Try models, given by name and directory, in every way; `folder` is for what they need meanwhile."""
    console = Console(stderr=True)
    tried: list[Tried] = []
    for model, version in models:
        family = open_version(version).spec.family
        for way in (None, *effort.ways):
            name = "CPU, float32" if way is None else way.name
            console.print(f"{model}: {name}")
            reason = None if way is None else way.missing(family, effort.device)
            if reason is None:
                trial = Trial(
                    version=version,
                    way=way,
                    device=effort.device,
                    batches=effort.batches,
                    turns=effort.turns,
                    folder=folder,
                )
                outcomes = in_a_process(trial)
            else:
                outcomes = [Outcome(check="all", status="skipped", detail=reason)]
            tried += [Tried(model=model, way=name, outcome=outcome) for outcome in outcomes]
    return Report(machine=machine(effort.device), tried=tuple(tried))


def machine(device: str) -> dict[str, str]:
    """Return the facts that figures depend on."""
    facts = {"device": device, "system": platform.platform(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            facts[package] = version_of(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    if torch.device(device).type == "cuda":
        found = torch.cuda.get_device_properties(device)
        facts |= {
            "GPU": found.name,
            "compute capability": f"{found.major}.{found.minor}",
            "memory": f"{found.total_memory / 2**30:.1f} GiB",
            "CUDA": str(torch.version.cuda),
            "cuDNN": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
            "driver": _driver(),
        }
    return facts


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def _models(networks: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield names and directories: the bundled models, then those of the file, filled at random."""
    for name in ("emoji-edm", "emoji-var"):
        current = (BUNDLED / name / "current").read_text().strip()
        yield f"{name}, bundled", BUNDLED / name / "versions" / current
    inits: dict[str, dict[str, Any]] = tomllib.loads(networks.read_text())
    tokenizer = inits.pop("tokenizer", None)
    for name, init in inits.items():
        version = folder / name / "versions" / "0001"
        version.parent.mkdir(parents=True)
        if tokenizer is not None and name == "transformer":
            write_var(version, init, tokenizer)
        else:
            write_denoiser(version, init)
        yield f"{name}, random weights", version


def in_a_process(trial: Trial) -> list[Outcome]:
    """Make a trial in a process of its own; how that ends, if not well, is an outcome too."""
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.trial", trial.model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
    )
    outcomes = []
    for line in ended.stdout.splitlines():
        try:
            outcomes.append(Outcome.model_validate_json(line))
        except ValidationError:
            continue  # what a library printed
    if ended.returncode or not outcomes:
        words = ended.stderr.strip().splitlines()[-1:] or ["it says nothing"]
        detail = f"the process ended with {ended.returncode}: {words[0]}"
        outcomes.append(Outcome(check="all", status="fail", detail=detail))
    return outcomes
