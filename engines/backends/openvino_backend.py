"""OpenVINO: the fastest backend on a CPU, without a compiler on the user's machine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as version_of
from typing import Any, TypeVar

import numpy as np
import openvino  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

import engines.backends
import engines.programs
import models.networks
from engines.backends.artifact_cache import ArtifactCache
from engines.backends.base import CompiledStep
from engines.backends.bucket_cache import BucketCache
from engines.backends.openvino_channels_last import keep_channels_last
from engines.backends.result_search import search_by_results
from engines.buckets import Buckets
from engines.code_digest import code_digest
from engines.programs.denoiser import trunk_program
from engines.programs.diffusion_step import DiffusionStep
from engines.programs.program import Program
from models.networks.preconditioning import denoise

T = TypeVar("T")
Run = Callable[..., Tensor]

TRACED_ROWS = 2
"""Rows of a program's example: tracing takes a size of 1 for a constant."""

_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class OpenVinoBackend:
    """Compiles trunks and decoders; what surrounds them stays in torch, float32.

    A program is compiled once, with a dynamic batch: one of its rows has the same bits at every batch size,
    which models compiled for one size each have not, and its weights are in memory once.

    Args:
        dtype: float32 or bfloat16, in which OpenVINO computes where it may; weights are kept in float32.
        identity: names the weights of all programs; programs of other weights must have another.
        cache: where compiled programs are kept; None: nowhere.
        threads: of a call.
        max_rows: most images of a call.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        *,
        identity: str,
        cache: ArtifactCache | None = None,
        threads: int,
        max_rows: int,
    ) -> None:
        self.device = torch.device("cpu")
        self._identity = identity
        self._cache = cache
        self._max_rows = max_rows
        self._core = openvino.Core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }

    def compile(self, step: DiffusionStep) -> CompiledStep:
        """Compile the trunks of `step`'s networks, which lose their weights."""
        network = self._compile_denoiser(step.network, "trunk")
        guide = None
        if step.guide is step.network:
            guide = network
        elif step.guide is not None:
            guide = self._compile_denoiser(step.guide, "guide-trunk")
        compiled = DiffusionStep(network, guide)

        @torch.inference_mode()
        def run(
            state: Tensor, sigma: Tensor, class_ids: Tensor, update: Tensor, scale: Tensor | None
        ) -> Tensor:
            # What torch does around a trunk is small, and a second thread of its own would go on spinning
            # after it on a core that OpenVINO needs.
            with _torch_threads(1):
                result: Tensor = compiled(state, sigma, class_ids, update, scale)
            return result

        return run

    def find_buckets(
        self, step: DiffusionStep, lane: str, run: Callable[[int, int], Tensor], most: int
    ) -> Buckets:
        """Compare results, and keep what was found in the cache."""
        if self._cache is None:
            return search_by_results(run, most)
        kept = BucketCache(self._cache, self._sources())
        return kept.get(lane, most, lambda: [search_by_results(run, most)])[0]

    def compile_program(self, program: Program) -> Run:
        """Compile a program of one output, all float32; it takes and returns tensors on the CPU."""
        model = self._cached(
            {"program": program.name},
            read=self._import,
            make=lambda: self._build(program),
            write=lambda compiled: compiled.export_model().getvalue(),
        )
        request = model.create_infer_request()

        def run(*inputs: Tensor) -> Tensor:
            arrays = [tensor.contiguous().numpy() for tensor in inputs]
            # A copy: the next call writes its results to the same place.
            return torch.from_numpy(request.infer(arrays, share_inputs=True)[0])

        return run

    def _import(self, content: bytes) -> openvino.CompiledModel:
        # A tensor's weights are used where they lie; those of bytes would be copied once more.
        blob = openvino.Tensor(np.frombuffer(content, np.uint8))
        return self._core.import_model(blob, "CPU", self._settings)

    def _cached(
        self,
        sources: Mapping[str, str | int],
        *,
        read: Callable[[bytes], T],
        make: Callable[[], T],
        write: Callable[[T], bytes],
    ) -> T:
        if self._cache is None:
            return make()
        return self._cache.get({**self._sources(), **sources}, read=read, make=make, write=write)

    def _compile_denoiser(self, network: Any, name: str) -> _SplitDenoiser:
        network.eval().requires_grad_(False).prepare_inference(torch.float32)
        run = self.compile_program(trunk_program(network, name=name, max_rows=2 * self._max_rows))
        network.drop_trunk()
        return _SplitDenoiser(network, run)

    def _build(self, program: Program) -> openvino.CompiledModel:
        sizes = {name: TRACED_ROWS for name in program.dimensions}
        # Traced, not exported: that takes a tenth of the time.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(program.module, program.example(sizes), check_trace=False)  # type: ignore[no-untyped-call]
        model = openvino.convert_model(traced)
        model.reshape(
            {
                index: openvino.PartialShape([-1 if isinstance(size, str) else size for size in port.shape])
                for index, port in enumerate(program.inputs)
            }
        )
        keep_channels_last(model)
        return self._core.compile_model(model, "CPU", self._settings)

    def _sources(self) -> dict[str, str | int]:
        return {
            "identity": self._identity,
            "code": code_digest(models.networks, engines.programs, engines.backends),
            "cpu": self._core.get_property("CPU", "FULL_DEVICE_NAME"),
            "capabilities": " ".join(sorted(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))),
            "openvino": openvino.__version__,
            "torch": version_of("torch"),
            **self._settings,
        }


class _SplitDenoiser(nn.Module):
    """A denoiser whose trunk is compiled."""

    def __init__(self, network: nn.Module, trunk: Run) -> None:
        super().__init__()
        self.network = network
        self.trunk = trunk
        self.label_dim = network.label_dim

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """Denoise as the network does."""
        network: Any = self.network
        return denoise(
            x,
            sigma,
            network.sigma_data,
            lambda scaled, noise: self.trunk(scaled, network.embed(noise, labels).expand(len(scaled), -1)),
        )


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
