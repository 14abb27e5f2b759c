"""Torch-TensorRT: TensorRT for networks that do not go through ONNX, compiled on the GPU that runs them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from engines.backends.base import CompiledStep
from engines.backends.result_search import search_by_results
from engines.backends.torch_backend import prepare_step
from engines.buckets import Buckets
from engines.cuda import CudaDevice
from engines.diffusion import SLOTS
from engines.errors import EngineError
from engines.export.dynamic import exported
from engines.programs.diffusion import GUIDED, PLAIN, diffusion_programs
from engines.programs.diffusion_step import DiffusionStep
from engines.programs.program import Port, Program


class TorchTensorRTBackend:
    """Compiles the programs `plain` and `guided` with `torch_tensorrt.dynamo.compile`, for any batch size.

    Networks are strongly typed: each tensor keeps the dtype that the program gives it. What Torch-TensorRT
    cannot convert runs in torch.

    Args:
        device: where to compute.
        dtype: float32 or bfloat16, of convolutions; conditioning, guidance and state stay float32.
        max_rows: most images of a call.
        api: the package `torch_tensorrt`.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *, max_rows: int, api: Any) -> None:
        self.device = device
        self.dtype = dtype
        self._max_rows = max_rows
        self._api = api

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype, *, max_rows: int) -> TorchTensorRTBackend:
        """Return the backend where a GPU and the package are.

        Raises:
            EngineError: one of them is missing.
        """
        CudaDevice(device)
        try:
            api = import_module("torch_tensorrt")
        except (ImportError, OSError) as error:  # OSError: built for another torch
            raise EngineError(
                f"the backend 'torch-tensorrt' needs the package of torch's own version, "
                f"{torch.__version__}: pip install 'ddo-serve[tensorrt]' ({error})"
            ) from error
        return cls(device, dtype, max_rows=max_rows, api=api)

    def compile(self, step: DiffusionStep) -> CompiledStep:
        """Compile the lanes of `step`; takes minutes for a large network.

        Raises:
            EngineError: Torch-TensorRT cannot compile it.
        """
        prepare_step(step, self.device, self.dtype)
        network: Any = step.network
        shape = (network.img_channels, network.img_resolution, network.img_resolution)
        programs = diffusion_programs(step, shape=shape, slots=SLOTS, max_rows=self._max_rows)
        names = {program.name: [port.name for port in program.inputs] for program in programs}
        lanes = {program.name: self._compile(program) for program in programs}

        @torch.inference_mode()
        def run(
            state: Tensor, sigma: Tensor, class_ids: Tensor, update: Tensor, scale: Tensor | None
        ) -> Tensor:
            lane = PLAIN if scale is None else GUIDED
            given = {"state": state, "sigma": sigma, "class_ids": class_ids, "update": update, "scale": scale}
            return lanes[lane](*(given[name] for name in names[lane]))

        return run

    def find_buckets(
        self, step: DiffusionStep, lane: str, run: Callable[[int, int], Tensor], most: int
    ) -> Buckets:
        """Compare results: what is compiled has no modules to watch."""
        return search_by_results(run, most)

    def _compile(self, program: Program) -> Callable[..., Tensor]:
        try:
            compiled: Callable[..., Tensor] = self._api.dynamo.compile(
                exported(program, self.device),
                inputs=[self._input(port, program) for port in program.inputs],
                device=self.device,
                use_explicit_typing=True,
            )
        except Exception as error:  # it has no type of its own for what it cannot do
            raise EngineError(f"Torch-TensorRT cannot compile {program.name}: {error}") from error
        return compiled

    def _input(self, port: Port, program: Program) -> Any:
        (ranges,) = program.profiles
        least, usual, most = (
            tuple(getattr(ranges[size], extreme) if isinstance(size, str) else size for size in port.shape)
            for extreme in ("least", "usual", "most")
        )
        return self._api.Input(
            min_shape=least, opt_shape=usual, max_shape=most, dtype=port.dtype, name=port.name
        )
