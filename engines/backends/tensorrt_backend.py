"""TensorRT engines, built beforehand, as the diffusion engine's backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from engines.backends.base import CompiledStep
from engines.backends.result_search import search_by_results
from engines.buckets import Buckets
from engines.errors import EngineError
from engines.programs.diffusion import GUIDED, PLAIN
from engines.programs.diffusion_step import DiffusionStep
from engines.tensorrt.loading import load_engine
from engines.tensorrt.runtime import Engine
from models.version import ModelVersion


class TensorRTBackend:
    """Runs a version's fused steps as engines.

    Args:
        engines: by lane, `plain` and where the model is guided `guided`.
        device: the engines'.
    """

    def __init__(self, engines: Mapping[str, Engine], device: torch.device) -> None:
        self.device = device
        self._engines = engines

    @classmethod
    def of(cls, version: ModelVersion, directory: Path, device: torch.device) -> TensorRTBackend:
        """Load a version's engines from the folder that they were built in.

        Raises:
            EngineError: TensorRT, a GPU or an engine is missing.
        """
        lanes = [PLAIN] if version.spec.guidance == "none" else [PLAIN, GUIDED]
        engines = {lane: load_engine(version, lane, directory=directory, device=device) for lane in lanes}
        return cls(engines, device)

    def compile(self, step: DiffusionStep) -> CompiledStep:
        """Return the engines as one call; the networks of `step` are not run.

        Raises:
            EngineError: a lane has no engine.
        """
        lanes = [PLAIN] if step.guide is None else [PLAIN, GUIDED]
        missing = [lane for lane in lanes if lane not in self._engines]
        if missing:
            raise EngineError(f"there is no engine for the lane {' and '.join(missing)}")

        @torch.inference_mode()
        def run(
            state: Tensor, sigma: Tensor, class_ids: Tensor, update: Tensor, scale: Tensor | None
        ) -> Tensor:
            engine = self._engines[PLAIN if scale is None else GUIDED]
            given = {"state": state, "sigma": sigma, "class_ids": class_ids, "update": update, "scale": scale}
            inputs = [given[tensor.name] for tensor in engine.record.inputs]
            (result,) = engine(*(tensor for tensor in inputs if tensor is not None))
            return result

        return run

    def find_buckets(
        self, step: DiffusionStep, lane: str, run: Callable[[int, int], Tensor], most: int
    ) -> Buckets:
        """Compare results; every size tried has its graph from then on."""
        return search_by_results(run, most)
