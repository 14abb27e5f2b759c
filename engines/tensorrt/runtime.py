"""The one module that drives engines through TensorRT's runtime interface."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engines.cuda import Device
from engines.errors import EngineError
from engines.tensorrt.log import logger_of
from engines.tensorrt.record import TensorRecord
from engines.tensorrt.store import StoredEngine

DTYPES: Mapping[str, torch.dtype] = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT64": torch.int64,
}
"""TensorRT's names of the dtypes that programs use."""


class Engine:
    """An engine on a device, called like the program that it was built from.

    For every set of sizes there is an execution context and a CUDA graph: a call copies its inputs to where
    the graph reads them, replays it and copies the outputs out. All contexts share the working memory and
    that of inputs and outputs, which the largest profile needs, so that calls must not overlap.

    Args:
        stored: the engine and its record.
        device: where to run.
        api: TensorRT; see `engines.tensorrt.api`.

    Raises:
        EngineError: the file is damaged, TensorRT cannot load it here, or its tensors are not the recorded.
    """

    def __init__(self, stored: StoredEngine, device: Device, api: Any) -> None:
        self.record = stored.record
        self._api = api
        self._device = device
        self._log = logger_of(api)
        if api.__version__ != self.record.package_version or api.__name__ != self.record.package:
            raise EngineError(
                f"{stored.path} was built by {self.record.package} {self.record.package_version} and runs "
                f"with it alone; here is {api.__name__} {api.__version__}: build it again"
            )
        plan = stored.read()
        self._log.messages.clear()
        self._runtime = api.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(f"TensorRT cannot load {stored.path}: {self._said()}")
        self._check_tensors(stored.path)
        self._memory = self._zeros(max(1, self._engine.device_memory_size_v2), torch.uint8)
        self._places = {
            tensor.name: self._zeros(self._most_elements(tensor), tensor.torch_dtype)
            for tensor in (*self.record.inputs, *self.record.outputs)
        }
        self._calls: dict[tuple[int, ...], _Call] = {}

    def warm_up(self, sizes: Mapping[str, int]) -> None:
        """Make the context, memory and graph of these sizes of the dynamic dimensions.

        Raises:
            EngineError: no profile of the engine covers them.
        """
        self._call(tuple(sizes[name] for name in self._dimensions))

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the program's outputs, in memory of their own.

        Raises:
            EngineError: an input has another dtype, device or shape than recorded, or no profile covers it.
        """
        sizes: dict[str, int] = {}
        for given, tensor in zip(inputs, self.record.inputs, strict=True):
            self._check_input(given, tensor, sizes)
        call = self._call(tuple(sizes[name] for name in self._dimensions))
        for given, buffer in zip(inputs, call.inputs, strict=True):
            buffer.copy_(given)
        call.replay()
        return tuple(buffer.clone() for buffer in call.outputs)

    @property
    def refittable(self) -> bool:
        """Whether the engine takes new weights."""
        return bool(self._engine.refittable)

    def refit(self, onnx: Path, check: Callable[[Engine], None]) -> None:
        """Give the engine the weights of another export of the same program.

        Args:
            onnx: the export.
            check: makes a call whose result is known and raises if the engine's is another. TensorRT is known
                to have lost a bias when an engine was refitted; it is then of no more use.

        Raises:
            EngineError: the engine takes no new weights, or not these.
        """
        if not self.refittable:
            raise EngineError(f"the engine of {self.record.program} takes no new weights: build another")
        self._log.messages.clear()
        refitter = self._api.Refitter(self._engine, self._log)
        parser = self._api.OnnxParserRefitter(refitter, self._log)
        if not parser.refit_from_file(str(onnx)) or not refitter.refit_cuda_engine():
            raise EngineError(f"TensorRT cannot refit {self.record.program}: {self._said()}")
        self._calls.clear()  # graphs may hold the old weights
        check(self)

    @property
    def _dimensions(self) -> list[str]:
        return sorted(self.record.profiles[0].ranges)

    def _call(self, sizes: tuple[int, ...]) -> _Call:
        if sizes not in self._calls:
            self._calls[sizes] = self._prepare(dict(zip(self._dimensions, sizes, strict=True)))
        return self._calls[sizes]

    def _prepare(self, sizes: dict[str, int]) -> _Call:
        profile = self._profile(sizes)
        inputs = [self._buffer(tensor, sizes) for tensor in self.record.inputs]
        outputs = [self._buffer(tensor, sizes) for tensor in self.record.outputs]
        context = self._context()
        context.set_device_memory(self._memory.data_ptr(), self._memory.numel())

        def choose(stream: int) -> None:
            self._require(context.set_optimization_profile_async(profile, stream), f"profile {profile}")

        def enqueue(stream: int) -> None:
            self._require(context.execute_async_v3(stream), "the call")

        self._device.run(choose)
        for tensor, buffer in zip(self.record.inputs, inputs, strict=True):
            shape = tuple(buffer.shape)
            self._require(context.set_input_shape(tensor.name, shape), f"{tensor.name} of shape {shape}")
        for tensor, buffer in zip(
            (*self.record.inputs, *self.record.outputs), (*inputs, *outputs), strict=True
        ):
            # TensorRT wants an address even of a tensor without elements, which torch gives none.
            address = buffer.data_ptr() or self._memory.data_ptr()
            self._require(context.set_tensor_address(tensor.name, address), f"the address of {tensor.name}")
        return _Call(context, inputs, outputs, self._device.capture(enqueue))

    def _context(self) -> Any:
        strategy = self._api.ExecutionContextAllocationStrategy.USER_MANAGED
        if not hasattr(self._engine, "create_runtime_config"):
            return self._engine.create_execution_context(strategy)
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        if hasattr(self._api, "DynamicShapesKernelSpecializationStrategy"):
            # A graph keeps the kernels that it was captured with: they must be the final ones by then.
            eager = self._api.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        return self._engine.create_execution_context(config)

    def _profile(self, sizes: dict[str, int]) -> int:
        for index, profile in enumerate(self.record.profiles):
            if profile.covers(sizes):
                return index
        raise EngineError(f"no profile of {self.record.program} covers {sizes}")

    def _buffer(self, tensor: TensorRecord, sizes: Mapping[str, int]) -> Tensor:
        shape = tensor.shape_at(sizes)
        return self._places[tensor.name][: math.prod(shape)].view(shape)

    def _most_elements(self, tensor: TensorRecord) -> int:
        profiles = self.record.profiles
        return max(math.prod(tensor.shape_at(profile.most)) for profile in profiles)

    def _zeros(self, count: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(count, dtype=dtype, device=self._device.device)

    def _check_input(self, given: Tensor, tensor: TensorRecord, sizes: dict[str, int]) -> None:
        fits = given.ndim == len(tensor.shape) and all(
            (sizes.setdefault(size, own) if isinstance(size, str) else size) == own
            for own, size in zip(given.shape, tensor.shape, strict=True)
        )
        if not fits or given.dtype != tensor.torch_dtype or given.device != self._device.device:
            raise EngineError(
                f"{tensor.name} of {self.record.program} must be {tensor.dtype} {list(tensor.shape)} on "
                f"{self._device.device}, it is {given.dtype} {list(given.shape)} on {given.device}"
            )

    def _check_tensors(self, path: Path) -> None:
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        found = {name: DTYPES.get(self._engine.get_tensor_dtype(name).name) for name in names}
        recorded = {tensor.name: tensor.torch_dtype for tensor in (*self.record.inputs, *self.record.outputs)}
        if found != recorded:
            raise EngineError(f"{path} has the tensors {found}, its record has {recorded}")

    def _require(self, accepted: bool, what: str) -> None:
        if not accepted:
            raise EngineError(f"TensorRT refuses {what} of {self.record.program}: {self._said()}")

    def _said(self) -> str:
        return "; ".join(text for _, text in self._log.messages) or "it does not say why"


class _Call:
    """One set of sizes: a context, its memory, and the graph over them, which needs both."""

    def __init__(
        self, context: Any, inputs: list[Tensor], outputs: list[Tensor], replay: Callable[[], None]
    ) -> None:
        self.context = context
        self.inputs = inputs
        self.outputs = outputs
        self.replay = replay
