"""Rows of an engine made to their ends, in any company."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engines.base import ImageRequest
from engines.diffusion_row import DiffusionRow
from models.spec import DiffusionDefaults
from models.version import ModelVersion

STEPS = 4
"""Of Heun's method: seven evaluations over all noise levels."""


def requests_of(version: ModelVersion, count: int, cfg: float = 1.0) -> list[ImageRequest]:
    """Return different requests, the first ones of any longer list."""
    classes = len(version.spec.class_names)
    diffusion = isinstance(version.spec.defaults, DiffusionDefaults)
    steps = {"solver": "heun", "steps": STEPS} if diffusion else {}
    return [
        ImageRequest(class_id=seed % classes if classes else None, seed=seed, cfg=cfg, **steps)  # type: ignore[arg-type]
        for seed in range(count)
    ]


def results(engine: Any, requests: Sequence[ImageRequest]) -> npt.NDArray[np.float64]:
    """Make rows side by side and return what they end with: samples of diffusion, tokens of VAR."""
    rows = opened(engine, requests)
    finish(engine, rows)
    ends = [engine.sample(row) if isinstance(row, DiffusionRow) else row.tokens.cpu().numpy() for row in rows]
    for row in rows:
        engine.close(row)
    return np.stack(ends).astype(np.float64)


def opened(engine: Any, requests: Sequence[ImageRequest]) -> list[Any]:
    """Open rows of requests."""
    return [engine.open(engine.resolve(request)) for request in requests]


def finish(engine: Any, rows: Sequence[Any]) -> None:
    """Make all calls of rows that share their lanes."""
    while rows[0].calls_left:
        engine.step(rows)


def median_ms(device: torch.device, work: Any, turns: int) -> float:
    """Return the median milliseconds of `work`, the device's own work included; one run is not counted."""
    seconds = []
    for turn in range(-1, turns):
        wait_for(device)
        started = time.perf_counter()
        work()
        wait_for(device)
        if turn >= 0:
            seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def wait_for(device: torch.device) -> None:
    """Return once the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
