"""Tensors rebuilt from what a file claims about them, checked against what the file holds."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from models.checkpoints.inert import Global, PickleReader
from models.errors import CheckpointError, UnsafeCheckpointError

STORAGES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "torch.DoubleStorage": torch.float64,
        "torch.FloatStorage": torch.float32,
        "torch.HalfStorage": torch.float16,
        "torch.BFloat16Storage": torch.bfloat16,
        "torch.LongStorage": torch.int64,
        "torch.IntStorage": torch.int32,
        "torch.ShortStorage": torch.int16,
        "torch.CharStorage": torch.int8,
        "torch.ByteStorage": torch.uint8,
        "torch.BoolStorage": torch.bool,
    }
)
"""Names of storage classes as `torch.save` writes them, and what they hold."""

MAX_DIMENSIONS = 8
MAX_EXPANSION = 2
"""Bytes of tensors a byte of file may become: tensors that share memory are legal, a bomb of them is not."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


@dataclass(frozen=True, slots=True)
class StorageId:
    """What a persistent id says of a storage: its dtype, its key in the file, its number of elements."""

    dtype: torch.dtype
    key: str
    length: int

    @property
    def size(self) -> int:
        """Bytes that the storage must have."""
        return self.length * self.dtype.itemsize

    @classmethod
    def parse(cls, value: Any) -> StorageId:
        """Read `("storage", class, key, device, length, ...)`; the device is where the tensor lay once."""
        match value:
            case ("storage", Global(name=name), str(key), str(), int(length), *_) if name in STORAGES:
                if length < 0:
                    raise CheckpointError(f"a storage claims {length} elements")
                return cls(STORAGES[name], key, length)
        raise UnsafeCheckpointError("a persistent id is not that of a tensor's storage")

    def storage(self, data: bytes) -> Tensor:
        """Return `data`, copied, as a one-dimensional tensor."""
        if len(data) != self.size:
            raise CheckpointError(f"a storage claims {self.size:,} bytes, the file holds {len(data):,}")
        if not data:
            return torch.empty(0, dtype=self.dtype)
        return torch.frombuffer(bytearray(data), dtype=self.dtype)


def load_storage(data: bytes) -> Tensor:
    """Read a storage in the layout that `torch.save` had before its zip files.

    Pickled storages hold one of these; torch's own `_load_from_bytes` hands it to `torch.load`. The layout:
    five pickles (magic number, protocol, platform, the storage as a persistent id, the list of keys), then
    the number of elements as a 64-bit integer and the elements themselves.

    Returns:
        The elements, one-dimensional.

    Raises:
        UnsafeCheckpointError: something else than a storage is in there.
        CheckpointError: it is damaged, or claims another size than it has.
    """
    if not isinstance(data, bytes):
        raise UnsafeCheckpointError("a storage is not given as bytes")
    file = io.BytesIO(data)
    reader = PickleReader(dict.fromkeys(STORAGES), persistent_load=StorageId.parse)
    if reader.load(file) != _LEGACY_MAGIC or reader.load(file) != _LEGACY_PROTOCOL:
        raise CheckpointError("a storage is not in torch's layout: wrong magic number")
    match reader.load(file):
        case {"little_endian": True}:
            pass
        case _:
            raise CheckpointError("a storage is not little-endian")
    identity, keys = reader.load(file), reader.load(file)
    if not isinstance(identity, StorageId) or keys != [identity.key]:
        raise UnsafeCheckpointError("a storage's bytes hold something else than one storage")
    length = int.from_bytes(file.read(8), "little", signed=True)
    if length != identity.length:
        raise CheckpointError(
            f"a storage claims {identity.length:,} elements in one place, {length:,} in another"
        )
    return identity.storage(file.read())


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Stand in for `torch._utils._rebuild_tensor_v2`: a view of `storage`, nothing allocated.

    Raises:
        CheckpointError: the view would reach outside its storage or be larger than it.
    """
    if not isinstance(storage, Tensor) or storage.ndim != 1:
        raise CheckpointError("a tensor is not made of a storage")
    if not (_are_sizes((offset,)) and _are_sizes(size) and _are_sizes(stride) and len(size) == len(stride)):
        raise CheckpointError("a tensor's size, stride or offset is not a tuple of natural numbers")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > len(storage) or (count and last >= len(storage)):
        raise CheckpointError(f"a tensor claims the shape {size}, its storage has {len(storage):,} elements")
    return storage.as_strided(size, stride, offset) if count else storage.new_empty(size)


def rebuild_parameter(data: Any, requires_grad: Any, hooks: Any) -> Tensor:
    """Stand in for `torch._utils._rebuild_parameter`: the parameter's data."""
    if not isinstance(data, Tensor):
        raise CheckpointError("a parameter is not a tensor")
    return data


def check_expansion(state: Mapping[str, Tensor], file_size: int) -> None:
    """Refuse tensors that together are much larger than the file that they come from.

    Raises:
        UnsafeCheckpointError: more than `MAX_EXPANSION` bytes of tensors a byte of file.
    """
    total = sum(tensor.numel() * tensor.itemsize for tensor in state.values())
    if total > MAX_EXPANSION * file_size:
        raise UnsafeCheckpointError(f"the tensors claim {total:,} bytes, the file has {file_size:,}")


def _are_sizes(values: Any) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) <= MAX_DIMENSIONS
        and all(type(value) is int and 0 <= value <= sys.maxsize for value in values)
    )
