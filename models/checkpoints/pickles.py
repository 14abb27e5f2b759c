"""Official EDM and EDM2 checkpoints: pickles of persistent objects, read for their tensors and arguments.

A persistent object is pickled as a call with one dictionary: class name, the whole source of the module that
defined it, and the object's `__dict__`. Their own loader executes that source. Here the call becomes a
record, the source is not looked at, and the record's constructor arguments and tensors are taken.
"""

from __future__ import annotations

import functools
import math
import mmap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from models.checkpoints.inert import Inert, PickleReader
from models.checkpoints.tensors import check_expansion, load_storage, rebuild_parameter, rebuild_tensor
from models.errors import CheckpointError

_NETWORKS = ("EDMPrecond", "Precond")
_POSITIONAL = ("img_resolution", "img_channels", "label_dim")
_MAX_ARGUMENT_VALUES = 10_000
_MAX_ARGUMENT_DEPTH = 16


@dataclass(frozen=True, slots=True)
class PersistentObject:
    """What remains of a pickled network object: its class's name and its `__dict__`."""

    class_name: str
    state: dict[str, Any]

    @classmethod
    def from_meta(cls, meta: Any) -> PersistentObject:
        """Stand in for the reconstruct call: read `meta` and run nothing."""
        match meta:
            case {"type": "class", "class_name": str(class_name), "state": dict(state)}:
                return cls(class_name, state)
        raise CheckpointError("a persistent object is not described by its class name and state")


def load_pickle(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the network under `ema` of an official EDM or EDM2 pickle.

    Args:
        path: the `.pkl`, a dictionary with `ema`; whatever else it holds is read past.

    Returns:
        Constructor arguments for `models.build`, and the state dict in the file's own dtypes (EDM2's are
        float16), buffers included. Reading takes up to twice the file's size in memory.

    Raises:
        UnsafeCheckpointError: the pickle asks for anything but the data of weights.
        CheckpointError: it is damaged or holds no network under `ema`.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        content = PickleReader(_ALLOWED).load(mapped)  # type: ignore[arg-type]  # a memory map reads as a file
    if not (isinstance(content, dict) and isinstance(content.get("ema"), PersistentObject)):
        raise CheckpointError(f"{path.name} is a pickle, but no dictionary with a network under 'ema'")
    network = content["ema"]
    init = constructor_arguments(network)
    state = flatten(network)
    check_expansion(state, path.stat().st_size)
    return init, state


def flatten(network: PersistentObject) -> dict[str, Tensor]:
    """Collect parameters and persistent buffers under the names that the module tree gives them.

    Raises:
        CheckpointError: the tree is not one of modules and tensors, or a module occurs in it twice.
    """
    state: dict[str, Tensor] = {}
    pending: list[tuple[str, Any]] = [("", network)]
    seen: set[int] = set()
    while pending:
        prefix, module = pending.pop()
        if id(module) in seen:
            raise CheckpointError(f"the module {prefix!r} occurs twice in the network")
        seen.add(id(module))
        attributes = getattr(module, "state", None)
        if not isinstance(attributes, dict):
            raise CheckpointError(f"{prefix!r} is not a module")
        transient = attributes.get("_non_persistent_buffers_set", ())
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _named(attributes, kind):
                if tensor is None or name in transient:
                    continue
                if not isinstance(tensor, Tensor):
                    raise CheckpointError(f"{prefix}{name} is not a tensor")
                state[prefix + name] = tensor
        pending += [
            (f"{prefix}{name}.", child) for name, child in _named(attributes, "_modules") if child is not None
        ]
    return state


def _named(attributes: Mapping[str, Any], kind: str) -> Iterable[tuple[str, Any]]:
    members = attributes.get(kind)
    if not isinstance(members, dict) or not all(isinstance(name, str) for name in members):
        raise CheckpointError(f"a module has no proper {kind}")
    return members.items()


def constructor_arguments(network: PersistentObject) -> dict[str, Any]:
    """Return the arguments that `network` was constructed with, as `models.build` takes them.

    Positional arguments get the names that both constructors begin with. Left out is what says nothing about
    weights or results: `use_fp16` (precision is the engine's choice) and sigma bounds that bound nothing.

    Raises:
        CheckpointError: an unknown class, or arguments that are no plain values.
    """
    if network.class_name not in _NETWORKS:
        raise CheckpointError(f"the network's class is {network.class_name!r}; known: {', '.join(_NETWORKS)}")
    positional, named = network.state.get("_init_args", ()), network.state.get("_init_kwargs", {})
    if not isinstance(positional, (tuple, list)) or not isinstance(named, dict):
        raise CheckpointError("the network does not say what it was constructed with")
    if len(positional) > len(_POSITIONAL):
        raise CheckpointError(f"the network was constructed with {len(positional)} arguments without names")
    arguments = dict(zip(_POSITIONAL, positional, strict=False)) | named
    kept = {name: value for name, value in arguments.items() if not _says_nothing(name, value)}
    plain: dict[str, Any] = _Plain().of(kept, _MAX_ARGUMENT_DEPTH)
    return {"class_name": network.class_name, **plain}


def _says_nothing(name: str, value: Any) -> bool:
    return name == "use_fp16" or (name, value) in (("sigma_min", 0), ("sigma_max", math.inf))


class _Plain:
    """Copies values into what JSON can say, within bounds: shared lists would unfold exponentially."""

    def __init__(self) -> None:
        self._budget = _MAX_ARGUMENT_VALUES

    def of(self, value: Any, depth: int) -> Any:
        self._budget -= 1
        if self._budget < 0 or depth < 0:
            raise CheckpointError("the constructor arguments are too many or nested too deep")
        match value:
            case None | bool() | int() | str():
                return value
            case float() if math.isfinite(value):
                return value
            case list() | tuple():
                return [self.of(item, depth - 1) for item in value]
            case dict() if all(isinstance(key, str) for key in value):
                return {key: self.of(item, depth - 1) for key, item in value.items()}
        raise CheckpointError(f"a constructor argument is a {type(value).__name__}, not a plain value")


def _numpy_scalar(dtype: Inert, data: bytes = b"") -> float | int | bool:
    code = dtype.arguments[0] if isinstance(dtype, Inert) and dtype.arguments else None
    if code not in ("f8", "f4", "f2", "i8", "i4", "u1", "b1"):
        raise CheckpointError("a numpy scalar is not a number")
    value: float | int | bool = np.frombuffer(data, dtype=f"<{code}", count=1)[0].item()
    return value


def _inert(name: str, *arguments: Any) -> Inert:
    return Inert(name, arguments)


def _inert_names(*names: str) -> dict[str, Callable[..., Any]]:
    return {name: functools.partial(_inert, name) for name in names}


_LAYERS = (
    *(
        "container.ModuleDict",
        "container.ModuleList",
        "container.Sequential",
        "linear.Linear",
        "linear.Identity",
    ),
    *(
        "conv.Conv2d",
        "normalization.GroupNorm",
        "normalization.LayerNorm",
        "dropout.Dropout",
        "activation.SiLU",
    ),
)

_ALLOWED: Mapping[str, Callable[..., Any] | None] = MappingProxyType(
    {
        "torch_utils.persistence._reconstruct_persistent_obj": PersistentObject.from_meta,
        "dnnlib.util.EasyDict": lambda: {},
        "collections.OrderedDict": lambda: {},
        "torch._utils._rebuild_parameter": rebuild_parameter,
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        "torch.storage._load_from_bytes": load_storage,
        "numpy.ndarray": None,
        "numpy.core.multiarray.scalar": _numpy_scalar,
        "numpy._core.multiarray.scalar": _numpy_scalar,
        **_inert_names(
            "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.dtype"
        ),
        **_inert_names("torch.device", *(f"torch.nn.modules.{layer}" for layer in _LAYERS)),
        **dict.fromkeys(("torch.float16", "torch.float32", "torch.float64", "torch.bfloat16")),
    }
)
