"""A stand-in for TensorRT on a CPU: it computes with ONNX Runtime and refuses what TensorRT refuses."""

from __future__ import annotations

import ctypes
import json
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import torch

from engines.cuda import Work
from engines.programs.program import Program
from engines.tensorrt.record import EngineRecord, TensorRecord, profiles_of
from engines.tensorrt.store import EngineStore, StoredEngine
from models.version import record

NAME, VERSION = "tensorrt_double", "0.0"
STREAM = 7
WORKING_MEMORY = 4096
NAMES = {"float32": "FLOAT", "float16": "HALF", "int64": "INT64"}


class Severity(Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class ILogger:
    Severity = Severity


class Strategy(Enum):
    STATIC = 0
    USER_MANAGED = 2


class CpuDevice:
    """The device that goes with the double: a graph is what the contexts were asked to execute meanwhile."""

    def __init__(self, api: TensorRTDouble) -> None:
        self.device = torch.device("cpu")
        self._api = api

    def run(self, work: Work) -> None:
        work(STREAM)

    def capture(self, work: Work) -> Callable[[], None]:
        work(STREAM)
        self._api.recording = graph = []
        work(STREAM)
        self._api.recording = None
        return lambda: [launch() for launch in graph] and None


class TensorRTDouble:
    """The module `tensorrt`, as far as the runtime uses it.

    Args:
        loses_weights: a refit reports success and changes nothing.
    """

    __version__ = VERSION
    ILogger = ILogger
    ExecutionContextAllocationStrategy = Strategy

    def __init__(self, loses_weights: bool = False) -> None:
        self.__name__ = NAME
        self.recording: list[Callable[[], None]] | None = None
        self.executions = 0
        self.loses_weights = loses_weights
        self.Runtime = lambda log: Runtime(self, log)
        self.Refitter = Refitter
        self.OnnxParserRefitter = OnnxParserRefitter


class Runtime:
    def __init__(self, api: TensorRTDouble, log: Any) -> None:
        self.api, self.log = api, log

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        try:
            return Engine(self.api, self.log, json.loads(plan))
        except ValueError:
            self.log.log(Severity.ERROR, "the plan is malformed")
            return None


class Engine:
    device_memory_size_v2 = WORKING_MEMORY

    def __init__(self, api: TensorRTDouble, log: Any, plan: Mapping[str, Any]) -> None:
        self.api, self.log = api, log
        self.inputs = [TensorRecord(**tensor) for tensor in plan["inputs"]]
        self.outputs = [TensorRecord(**tensor) for tensor in plan["outputs"]]
        self.profiles: list[dict[str, list[int]]] = plan["profiles"]
        self.refittable: bool = plan["refittable"]
        self.load(plan["onnx"])

    def load(self, onnx: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # more of them spin while they wait
        self.session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    @property
    def tensors(self) -> list[TensorRecord]:
        return [*self.inputs, *self.outputs]

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return self.tensors[index].name

    def get_tensor_dtype(self, name: str) -> Any:
        (tensor,) = [tensor for tensor in self.tensors if tensor.name == name]
        return SimpleNamespace(name=NAMES[tensor.dtype])

    def create_execution_context(self, strategy: Strategy) -> Context:
        assert strategy is Strategy.USER_MANAGED
        return Context(self)


@dataclass
class Context:
    engine: Engine
    profile: int | None = None
    memory: tuple[int, int] | None = None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        owner = self.engine
        self._owner = weakref.ref(owner)
        self._log, self._api, self._inputs, self._outputs = owner.log, owner.api, owner.inputs, owner.outputs
        del self.engine

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = (address, size)

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        owner = self._owner()
        if owner is None or stream != STREAM or not 0 <= index < len(owner.profiles):
            return self._refuse(f"profile {index} is not there")
        self.profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        owner = self._owner()
        if owner is None or self.profile is None:
            return self._refuse(f"the shape of {name} was set before a profile was chosen")
        (tensor,) = [tensor for tensor in self._inputs if tensor.name == name]
        ranges = owner.profiles[self.profile]
        for own, size in zip(shape, tensor.shape, strict=True):
            low, _, high = ranges[size] if isinstance(size, str) else (size, size, size)
            if not low <= own <= high:
                return self._refuse(f"{name} {shape} is outside profile {self.profile}")
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name not in [tensor.name for tensor in (*self._inputs, *self._outputs)] or not address:
            return self._refuse(f"{name} cannot lie at {address}")
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        fault = self._fault(stream)
        if fault:
            return self._refuse(fault)
        if self._api.recording is not None:
            # A graph holds shapes and addresses as they are now.
            shapes, addresses = dict(self.shapes), dict(self.addresses)
            self._api.recording.append(lambda: self._compute(shapes, addresses))
        else:
            self._compute(self.shapes, self.addresses)
        return True

    def _fault(self, stream: int) -> str | None:
        tensors = (*self._inputs, *self._outputs)
        faults = {
            "the engine was released": self._owner() is None,
            "there is no such stream": stream != STREAM,
            "no profile was chosen": self.profile is None,
            "there is not enough working memory": self.memory is None or self.memory[1] < WORKING_MEMORY,
            "an input has no shape": any(tensor.name not in self.shapes for tensor in self._inputs),
            "a tensor has no address": any(tensor.name not in self.addresses for tensor in tensors),
        }
        found = [fault for fault, there in faults.items() if there]
        return found[0] if found else self._aliasing()

    def _aliasing(self) -> str | None:
        spans = [(self.memory[0], self.memory[0] + self.memory[1], "working memory")] if self.memory else []
        sizes = self._sizes()
        for tensor in (*self._inputs, *self._outputs):
            count = math.prod(tensor.shape_at(sizes)) * tensor.torch_dtype.itemsize
            start = self.addresses[tensor.name]
            for low, high, other in spans if count else []:
                if start < high and low < start + count:
                    return f"{tensor.name} lies in the memory of {other}"
            spans.append((start, start + count, tensor.name))
        return None

    def _sizes(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, int]:
        shapes = self.shapes if shapes is None else shapes
        return {
            size: own
            for tensor in self._inputs
            for size, own in zip(tensor.shape, shapes[tensor.name], strict=True)
            if isinstance(size, str)
        }

    def _compute(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        owner = self._owner()
        assert owner is not None
        self._api.executions += 1
        feed = {
            tensor.name: _at(addresses[tensor.name], tensor, shapes[tensor.name]) for tensor in self._inputs
        }
        results = owner.session.run([tensor.name for tensor in self._outputs], feed)
        for tensor, result in zip(self._outputs, results, strict=True):
            assert result.shape == tensor.shape_at(self._sizes(shapes))
            ctypes.memmove(addresses[tensor.name], np.ascontiguousarray(result).ctypes.data, result.nbytes)

    def _refuse(self, reason: str) -> bool:
        self._log.log(Severity.ERROR, reason)
        return False


class Refitter:
    def __init__(self, engine: Engine, log: Any) -> None:
        self.engine, self.log = engine, log
        self.onnx: str | None = None

    def refit_cuda_engine(self) -> bool:
        if self.onnx is None or not self.engine.refittable:
            return False
        if not self.engine.api.loses_weights:
            self.engine.load(self.onnx)
        return True


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter, log: Any) -> None:
        self.refitter = refitter

    def refit_from_file(self, path: str) -> bool:
        self.refitter.onnx = path
        return Path(path).is_file()


def store(
    directory: Path,
    program: Program,
    onnx: Path,
    *,
    weights: Mapping[str, str] | None = None,
    refittable: bool = False,
    dtypes: Sequence[str] = (),
) -> StoredEngine:
    """Write an engine of the double for `onnx`; `dtypes` replace those of the tensors in the file."""
    inputs = tuple(TensorRecord.of(port) for port in program.inputs)
    outputs = tuple(TensorRecord.of(port) for port in program.outputs)
    tensors = [tensor.model_dump() for tensor in (*inputs, *outputs)]
    for tensor, dtype in zip(tensors, dtypes, strict=False):
        tensor["dtype"] = dtype
    profiles = profiles_of(program)
    plan = {
        "onnx": str(onnx),
        "inputs": tensors[: len(inputs)],
        "outputs": tensors[len(inputs) :],
        "profiles": [profile.ranges for profile in profiles],
        "refittable": refittable,
    }

    def write(path: Path) -> EngineRecord:
        path.write_text(json.dumps(plan))
        file = record(path)
        return EngineRecord(
            model="tiny",
            version=None,
            weights=dict(weights or {}),
            program=program.name,
            precision="fp16",
            digest="0",
            key=program.name,
            inputs=inputs,
            outputs=outputs,
            profiles=profiles,
            package=NAME,
            package_version=VERSION,
            capabilities=(),
            refittable=refittable,
            layers={},
            seconds=0.0,
            peak_bytes=0,
            file=f"{program.name}.engine",
            size=file.size,
            sha256=file.sha256,
        )

    return EngineStore(directory).add(write)


def _at(address: int, tensor: TensorRecord, shape: tuple[int, ...]) -> np.ndarray:
    dtype = np.dtype(tensor.dtype)
    count = math.prod(shape)
    raw = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
    return np.frombuffer(raw, dtype=dtype).reshape(shape).copy()
