"""What `torch.save` writes today: a zip of one pickle and a file a storage."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from models.checkpoints.inert import PickleReader
from models.checkpoints.tensors import (
    STORAGES,
    StorageId,
    check_expansion,
    rebuild_parameter,
    rebuild_tensor,
)
from models.errors import CheckpointError, UnsafeCheckpointError

_ALLOWED: Mapping[str, Callable[..., Any] | None] = MappingProxyType(
    {
        "collections.OrderedDict": lambda: {},
        "torch._utils._rebuild_parameter": rebuild_parameter,
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        **dict.fromkeys(STORAGES),
    }
)
"""The subset of `torch.load(weights_only=True)` that a state dict needs."""


def load_archive(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a `.pth`, flat or under `trainer` and `var_wo_ddp` as VAR's trainer saves it.

    Only what is in the file is allocated: entries must be stored, not compressed, and fit into the file, and
    each storage must be as long as the pickle claims. Checksums are verified.

    Raises:
        UnsafeCheckpointError: the pickle asks for anything but tensors, or the zip is a bomb.
        CheckpointError: it is damaged or holds no state dict.
    """
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(archive, size)
            content = _read(archive)
    # zipfile raises NotImplementedError for a compression or version that it does not know.
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path.name} is damaged or truncated: {error}") from error
    state = _state_dict(content, path)
    check_expansion(state, size)
    return state


def _check_entries(archive: zipfile.ZipFile, size: int) -> None:
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UnsafeCheckpointError("the zip has compressed entries, which torch never writes")
    if sum(entry.file_size for entry in entries) > size:
        raise UnsafeCheckpointError("the zip's entries claim more bytes than the file has")
    if len({entry.filename for entry in entries}) < len(entries):
        raise UnsafeCheckpointError("the zip has two entries of the same name")


def _read(archive: zipfile.ZipFile) -> Any:
    pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError("the zip was not written by torch.save: it has no data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
        raise CheckpointError("the tensors are not little-endian")
    storages: dict[str, tuple[StorageId, Tensor]] = {}

    def storage(value: Any) -> Tensor:
        identity = StorageId.parse(value)
        if identity.key not in storages:
            try:
                data = archive.read(f"{root}data/{identity.key}")
            except KeyError:
                raise CheckpointError(f"the zip lacks the storage {identity.key!r}") from None
            storages[identity.key] = identity, identity.storage(data)
        known, tensor = storages[identity.key]
        if known != identity:
            raise CheckpointError(f"the storage {identity.key!r} is described in two ways")
        return tensor

    return PickleReader(_ALLOWED, storage).load(io.BytesIO(archive.read(pickles[0])))


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    match content:
        case {"trainer": {"var_wo_ddp": dict(nested)}}:
            content = nested
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path.name} holds no state dict")
    strange = [
        name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if strange:
        raise CheckpointError(f"{path.name} holds no state dict: {strange[0]!r} is not a tensor")
    return content
