"""`python -m benchmarks engines` and `peers`: which ways there are, and what they are measured on."""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import benchmarks
from benchmarks.engines.comparison import Case, Contender, Measurement, compare
from benchmarks.engines.report import Peak, Report
from benchmarks.engines.subjects import denoiser_flops, var_flops, write_denoiser, write_var

PUBLISHED = Path(benchmarks.__file__).parent / "configs" / "engines.toml"
OURS, REFERENCE = "benchmarks.engines.arms", "benchmarks.engines.reference"
BATCHES = (1, 4, 8)
IMAGES = ((1, 1.0), (1, 1.5), (4, 1.0))
"""Batch and guidance scale of VAR's cases."""
PRODUCTS = (1024, 2048, 4096)
"""Sides of the matrices whose product shows the machine's peak."""


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        turns: timings of each way and case.
        threads: of each process.
        compiled: measure torch.compile too (minutes until it starts; needs a C++ compiler).
        products: sides of the matrices that show the machine's peak.
    """

    turns: int
    threads: int
    compiled: bool
    products: Sequence[int] = PRODUCTS


@dataclass(frozen=True)
class Bench:
    """What both comparisons share.

    Attributes:
        effort: how much is measured.
        folder: for versions and results.
        peak: of the machine.
    """

    effort: Effort
    folder: Path
    peak: Peak

    def measure(
        self, contenders: Sequence[Contender], cases: Mapping[str, Case], *, check: bool
    ) -> dict[str, Measurement]:
        """See `compare`."""
        turns, threads = self.effort.turns, self.effort.threads
        return compare(contenders, cases, turns=turns, threads=threads, folder=self.folder, check=check)


def main(
    networks: Path, effort: Effort, *, edm: Path | None, var: Path | None, json_file: Path | None
) -> list[Report]:
    """Compare the ways to run the networks of a file, print tables and write JSON.

    Args:
        networks: TOML with constructor arguments: `denoiser` (EDM), or `transformer` and `tokenizer` (VAR),
            or all of them.
        effort: how much is measured.
        edm: checkout of https://github.com/NVlabs/edm; None: without it.
        var: checkout of https://github.com/FoundationVision/VAR; None: without it.
        json_file: where the figures go too.
    """
    console = Console()
    inits = tomllib.loads(networks.read_text())
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        peak = measure_peak(effort, folder)
        console.print(
            f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
            f"threads: {effort.threads}; "
            f"fastest bfloat16 product: {peak.product}, {peak.wall / 1e9:.0f} GFLOP/s, "
            f"{peak.compute / 1e9:.0f} GFLOP a CPU second"
        )
        bench = Bench(effort, folder, peak)
        reports = []
        if "denoiser" in inits:
            reports.append(compare_denoisers(inits["denoiser"], edm, bench))
        if "transformer" in inits:
            reports.append(compare_decoders(inits["transformer"], inits["tokenizer"], var, bench))
        for report in reports:
            console.print(*report.tables(), sep="\n")
    if json_file is not None:
        json_file.write_text(json.dumps([report.record() for report in reports], indent=2) + "\n")
    return reports


def measure_peak(effort: Effort, folder: Path) -> Peak:
    """Return the speed of the fastest product of two square bfloat16 matrices, in torch or OpenVINO."""
    contenders = [Contender(arm, OURS, {"arm": arm}) for arm in ("torch product", "openvino product")]
    cases = {f"{size} x {size}": {"size": size} for size in effort.products}
    measured = compare(
        contenders, cases, turns=effort.turns, threads=effort.threads, folder=folder, check=False
    )
    peaks = [
        Peak(2 * case["size"] ** 3 / wall, 2 * case["size"] ** 3 / compute, f"{name}, {label}")
        for name, own in measured.items()
        for label, case in cases.items()
        if (wall := own.wall(label)) and (compute := own.compute(label))
    ]
    return max(peaks, key=lambda peak: peak.wall)


def compare_denoisers(init: Mapping[str, Any], checkout: Path | None, bench: Bench) -> Report:
    """Compare one evaluation of an EDM network; every way's result is held against the first's."""
    version = bench.folder / "denoiser"
    write_denoiser(version, init)
    shared = {"init": init, "version": str(version)}
    contenders = [
        *_reference("edm", checkout, {"init": init, "weights": _weights(version, "main")}),
        Contender("torch eager, float32", OURS, {**shared, "arm": "torch", "precision": "float32"}),
        *_ours("denoising engine", shared, max(BATCHES), bench.folder),
        Contender("torch eager, bfloat16", OURS, {**shared, "arm": "torch", "precision": "bfloat16"}),
        Contender("ONNX Runtime, float32", OURS, {**shared, "arm": "onnx"}),
    ]
    for precision, dynamic in (("f32", False), ("bf16", False), ("bf16", True)):
        name = f"OpenVINO, {precision}, {'any batch' if dynamic else 'one batch'}"
        settings = {**shared, "arm": "openvino", "precision": precision, "dynamic": dynamic}
        contenders.append(Contender(name, OURS, settings))
    if bench.effort.compiled:
        settings = {**shared, "arm": "torch", "precision": "bfloat16", "compiled": True}
        contenders.append(Contender("torch.compile, bfloat16", OURS, settings))
    images = {f"batch {batch}": batch for batch in BATCHES}
    cases = {label: {"batch": batch} for label, batch in images.items()}
    measured = bench.measure(contenders, cases, check=True)
    flops = denoiser_flops(init)
    return Report(
        f"EDM, one evaluation, {flops / 1e9:.3g} GFLOP an image",
        {label: batch * flops for label, batch in images.items()},
        images,
        measured,
        bench.peak,
    )


def compare_decoders(
    init: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    checkout: Path | None,
    bench: Bench,
) -> Report:
    """Compare the making of whole VAR images. Each way draws other noise, so images are not compared."""
    version = bench.folder / "var"
    write_var(version, init, tokenizer)
    foreign = {"init": init, "tokenizer": tokenizer, "weights": _weights(version, "main", "vqvae")}
    contenders = [
        *_reference("var", checkout, foreign),
        *_ours(
            "image engine", {"init": init, "version": str(version)}, max(n for n, _ in IMAGES), bench.folder
        ),
    ]
    cases: dict[str, Case] = {
        f"batch {batch}, cfg {cfg}": {"batch": batch, "cfg": cfg} for batch, cfg in IMAGES
    }
    measured = bench.measure(contenders, cases, check=False)
    flops = {
        label: case["batch"] * var_flops(init, tokenizer, guided=case["cfg"] != 1)
        for label, case in cases.items()
    }
    images = {label: int(case["batch"]) for label, case in cases.items()}
    return Report("VAR, whole images", flops, images, measured, bench.peak)


def _reference(family: str, checkout: Path | None, settings: Mapping[str, Any]) -> list[Contender]:
    if checkout is None:
        return []
    given = {**settings, "family": family, "checkout": str(checkout.resolve())}
    return [Contender("reference code, float32", REFERENCE, given)]


def _ours(arm: str, settings: Mapping[str, Any], max_rows: int, folder: Path) -> list[Contender]:
    given = {**settings, "arm": arm, "max_rows": max_rows, "cache": str(folder / "cache")}
    return [
        Contender(f"ddo-serve, {backend}", OURS, {**given, "backend": backend}, warm_start=True)
        for backend in ("auto", "torch")
    ]


def _weights(version: Path, *names: str) -> dict[str, str]:
    return {name: str(version / f"{name}.safetensors") for name in names}
