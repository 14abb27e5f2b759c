"""The checks of one engine; each returns its figures or raises what it found wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.images import finish, median_ms, opened, requests_of, results
from benchmarks.gpu.outcome import CheckError, Figures, SkippedError
from benchmarks.gpu.way import WayPrecision
from engines.backends.torch_backend import TorchBackend
from engines.base import ImageRequest
from engines.cuda import Device
from engines.diffusion import SLOTS
from engines.graphed_calls import GraphedCalls
from engines.version_programs import step_of
from models.spec import DiffusionDefaults
from models.version import ModelVersion
from server.hosting.warmup import check_image, golden_request

MOST_ERROR: Mapping[WayPrecision, float] = {"float32": 5e-3, "bfloat16": 5e-2, "float16": 5e-2}
"""Of samples of four Heun steps, relative. PyTorch's float32 convolutions on a GPU are TensorFloat-32."""

LEAST_EQUAL: Mapping[WayPrecision, float] = {"float32": 0.95, "bfloat16": 0.5, "float16": 0.5}
"""Share of VAR's tokens: a single other token changes those after it."""


def agrees(engine: Any, version: ModelVersion, precision: WayPrecision, exact: Path) -> Figures:
    """Compare with what the CPU made in float32 of the same requests."""
    expected = np.load(exact)
    made = results(engine, requests_of(version, len(expected)))
    if isinstance(version.spec.defaults, DiffusionDefaults):
        error = float(np.linalg.norm(made - expected) / np.linalg.norm(expected))
        figures = {"relative error": error}
        if not error <= MOST_ERROR[precision]:
            raise CheckError(f"more than {MOST_ERROR[precision]:g} off the CPU's float32", figures)
        return figures
    share = float((made == expected).mean())
    figures = {"equal tokens, share": share}
    if share < LEAST_EQUAL[precision]:
        raise CheckError(f"fewer than {LEAST_EQUAL[precision]:.0%} of the CPU's float32 tokens", figures)
    return figures


def same_in_any_batch(engine: Any, version: ModelVersion, batches: Sequence[int]) -> Figures:
    """Make images in batches of each size, and alone: all bits must be the same."""
    most = max(batches)
    for cfg in scales_of(version):
        requests = requests_of(version, most, cfg)
        alone = np.concatenate([results(engine, [request]) for request in requests])
        for batch in batches:
            made = [results(engine, requests[at : at + batch]) for at in range(0, most, batch)]
            different = int((np.concatenate(made) != alone).reshape(most, -1).any(axis=1).sum())
            if different:
                raise CheckError(
                    f"cfg {cfg}: {different} of {most} images change in a batch of {batch}",
                    {"images that change": different},
                )
    return {"images": float(most)}


def repeats(engine: Any, version: ModelVersion) -> Figures:
    """Make an image twice: what a graph replays must not depend on what came before."""
    (request, *others) = requests_of(version, 3)
    first = results(engine, [request])
    results(engine, others)
    if not np.array_equal(first, results(engine, [request])):
        raise CheckError("the same request gives other bits the second time", {})
    return {}


def golden(engine: Any, version: ModelVersion) -> Figures:
    """Compare with the version's golden image, as a server does before it serves."""
    if version.spec.golden is None:
        raise SkippedError("the model has no golden image: its weights are random")
    (row,) = opened(engine, [golden_request(version)])
    finish(engine, [row])
    check_image(engine.image(row), version)
    engine.close(row)
    return {}


def times(
    engine: Any, version: ModelVersion, device: torch.device, *, batches: Sequence[int], turns: int
) -> Figures:
    """Time whole rows, their opening included: of diffusion a call's share, of VAR the image."""
    figures = {}
    for cfg in scales_of(version):
        for batch in batches:
            requests = requests_of(version, batch, cfg)
            calls: list[int] = []

            def make(requests: Sequence[ImageRequest] = requests, calls: list[int] = calls) -> None:
                rows = opened(engine, requests)
                calls[:] = [row.calls_left for row in rows]
                finish(engine, rows)
                for row in rows:
                    engine.close(row)

            whole = median_ms(device, make, turns)
            if isinstance(version.spec.defaults, DiffusionDefaults):
                figures[f"batch {batch}, cfg {cfg:g}, ms a call"] = whole / calls[0]
            else:
                figures[f"batch {batch}, cfg {cfg:g}, ms"] = whole
    return figures


@torch.inference_mode()
def graphs_replay(
    version: ModelVersion, dtype: torch.dtype, device: Device, *, batches: Sequence[int], turns: int
) -> Figures:
    """Compare calls of the eager step with their graphs, bit for bit, and time both."""
    step = step_of(version)
    run = TorchBackend(device.device, dtype).compile(step)

    def call(*inputs: Tensor) -> Tensor:
        state, sigma, class_ids, update, *scale = inputs
        return run(state, sigma, class_ids, update, scale[0] if scale else None)

    graphed, figures = GraphedCalls(call, device), {}
    init = version.spec.networks["main"].init
    image = (init["img_channels"], init["img_resolution"], init["img_resolution"])
    for batch in batches:
        for scale in ([], [torch.full((batch,), 1.5)]) if step.guide is not None else ([],):
            first, second = (
                [given.to(device.device) for given in (*_inputs(batch, image, seed), *scale)]
                for seed in (1, 2)
            )
            graphed(*first)  # captured with other values
            if not torch.equal(graphed(*second), call(*second)):
                raise CheckError(
                    f"batch {batch}: the graph gives other bits than the calls that it holds", {}
                )
            if not scale:
                for name, launched in (("eager", call), ("graph", graphed)):
                    work = partial(launched, *second)
                    figures[f"batch {batch}, {name}, ms"] = median_ms(device.device, work, turns)
    return figures


def scales_of(version: ModelVersion) -> tuple[float, ...]:
    """Return the guidance scales to try: VAR guides itself."""
    return (1.0,) if version.spec.family != "var" and version.spec.guidance == "none" else (1.0, 1.5)


def _inputs(batch: int, image: tuple[int, int, int], seed: int) -> tuple[Tensor, ...]:
    drawn = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, SLOTS, *image, generator=drawn),
        torch.rand(batch, generator=drawn) + 0.1,
        torch.zeros(batch, dtype=torch.int64),
        torch.randn(batch, SLOTS, SLOTS + 1, generator=drawn),
    )
