"""Checkpoints whose data are not what they claim are refused, within bounded memory."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import official
import pytest
import torch
from hostile import MEBIBYTE, Call, storage_bytes
from official import EDM_INIT, VAR_INIT
from reference import fill
from safetensors.torch import save_file

from models import build, checkpoints
from models.checkpoints.tensors import load_storage, rebuild_tensor
from models.errors import CheckpointError, UnsafeCheckpointError

HUGE = 1 << 40


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((HUGE,), (1,), 0),
        ((HUGE,), (0,), 0),
        ((5,), (0,), 0),
        ((2, 2), (2, 2), 0),
        ((4,), (1,), 1),
        ((1,), (1,), 4),
        ((2,), (HUGE,), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 1),
        ((2,), (1,), -1),
        ((2, 2), (1,), 0),
        ((2.0,), (1,), 0),
        ((1,) * 9, (1,) * 9, 0),
        ([2], [1], 0),
        ((1 << 70,), (1,), 0),
    ],
)
def test_tensor_larger_than_its_storage(size: Any, stride: Any, offset: Any, tmp_path: Path) -> None:
    tensor = Call(
        torch._utils._rebuild_tensor_v2, (torch.ones(4).storage(), offset, size, stride, False, None)
    )
    path = official.write_pickle(tmp_path / "large.pkl", official.bare("Precond", _buffers={"a": tensor}))
    with pytest.raises(CheckpointError, match="a tensor"):
        checkpoints.load(path)


def test_views_within_their_storage_are_fine() -> None:
    storage = torch.arange(4.0)
    assert rebuild_tensor(storage, 0, (2, 2), (1, 2)).tolist() == [[0, 2], [1, 3]]
    assert rebuild_tensor(storage, 3, (), ()).item() == 3
    assert rebuild_tensor(storage, 4, (0, 3), (3, 1)).shape == (0, 3)


def edited(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


STORAGES: dict[str, Callable[[bytes], Any]] = {
    "magic": lambda data: edited(data, b"\x6c\xfc\x9c", b"\x6c\xfc\x9d"),
    "protocol": lambda data: edited(data, b"\x80\x02M\xe9\x03.", b"\x80\x02M\xe8\x03."),
    "byte order": lambda data: edited(data, b"little_endianq\x02\x88", b"little_endianq\x02\x89"),
    "dtype": lambda data: edited(data, b"FloatStorage", b"PolarStorage"),
    "smaller dtype": lambda data: edited(data, b"FloatStorage", b"HalfStorage"),
    "no keys": lambda data: data[: data.rindex(b"]q")] + b"]." + data[-24:],
    "length in the id": lambda data: edited(data, b"K\x04N", b"K\x05N"),
    "length before the data": lambda data: edited(data, b"\x04" + b"\0" * 7, b"\x05" + b"\0" * 7),
    "cut": lambda data: data[:-1],
    "appended": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "zip": lambda data: b"PK\x03\x04" + data,
    "no bytes": lambda data: "text",
}


@pytest.mark.parametrize("change", STORAGES.values(), ids=STORAGES)
def test_storage_that_lies(change: Callable[[bytes], Any]) -> None:
    data = storage_bytes(torch.arange(4.0))
    assert load_storage(data).tolist() == [0, 1, 2, 3]
    with pytest.raises(CheckpointError):
        load_storage(change(data))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("files")
    edm, var = fill(build(EDM_INIT)), fill(build(VAR_INIT))
    save_file(var.state_dict(), folder / "var.safetensors")
    return {
        "pickle": official.write_pickle(folder / "edm.pkl", official.persistent(edm, EDM_INIT)).read_bytes(),
        "archive": official.write_archive(folder / "var.pth", var.state_dict()).read_bytes(),
        "safetensors": (folder / "var.safetensors").read_bytes(),
    }


@pytest.mark.parametrize("share", [0.0, 1e-5, 1e-4, 0.01, 0.1, 0.5, 0.9, 0.999, 0.99999])
@pytest.mark.parametrize("layout", ["pickle", "archive", "safetensors"])
def test_truncated_file(layout: str, share: float, files: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(files[layout])
    checkpoints.load(path)
    path.write_bytes(files[layout][: int(share * len(files[layout]))])
    with pytest.raises(CheckpointError):
        checkpoints.load(path)


@pytest.mark.parametrize(
    "start", [b"", b"MZ\x90\0", b"\x93NUMPY", b"GGUF", b"{}", b"\0" * 64, b"PK\x05\x06" + b"\0" * 18]
)
def test_wrong_magic(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(start)
    with pytest.raises(CheckpointError, match="starts like neither"):
        checkpoints.load(tmp_path / "file.pkl")


def repack(source: bytes, path: Path, compression: int = zipfile.ZIP_STORED, **changed: bytes | None) -> Path:
    """Write an archive again with entries changed, or left out where None."""
    with zipfile.ZipFile(io.BytesIO(source)) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            key = name.split("/", 1)[1].replace("/", "_").replace(".", "_")
            data = changed.get(key, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return path


def test_compressed_archive(files: dict[str, bytes], tmp_path: Path) -> None:
    path = repack(files["archive"], tmp_path / "a.pth", zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeCheckpointError, match="compressed entries"):
        checkpoints.load(path)


@pytest.mark.usefixtures("bounded")
def test_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a/data.pkl", "w") as entry,
    ):
        for _ in range(256):
            entry.write(bytes(MEBIBYTE))
    assert path.stat().st_size < MEBIBYTE
    with pytest.raises(UnsafeCheckpointError, match="compressed entries"):
        checkpoints.load(path)


@pytest.mark.usefixtures("bounded")
def test_zip_that_claims_more_than_it_has(files: dict[str, bytes], tmp_path: Path) -> None:
    data = bytearray(files["archive"])
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 20 : entry + 28] = struct.pack("<II", 0xFFFFFF00, 0xFFFFFF00)
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(UnsafeCheckpointError, match="more bytes than the file has"):
        checkpoints.load(tmp_path / "a.pth")


def test_zip_with_a_name_twice(files: dict[str, bytes], tmp_path: Path) -> None:
    path = repack(files["archive"], tmp_path / "a.pth")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"")
    with pytest.raises(UnsafeCheckpointError, match="two entries of the same name"):
        checkpoints.load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data_0": b"\0"}, "a storage claims"),
        ({"data_0": None}, "lacks the storage '0'"),
        ({"data_pkl": None}, "no data.pkl"),
        ({"byteorder": b"big"}, "not little-endian"),
        ({"data_pkl": pickle.dumps([1], protocol=2)}, "no state dict"),
        ({"data_pkl": pickle.dumps({"a": 1}, protocol=2)}, "'a' is not a tensor"),
    ],
)
def test_archive_with_changed_entries(
    changed: dict[str, bytes | None], message: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(repack(files["archive"], tmp_path / "a.pth", **changed))


def test_archive_with_a_flipped_bit(files: dict[str, bytes], tmp_path: Path) -> None:
    data = bytearray(files["archive"])
    data[len(data) // 2] ^= 1
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="CRC"):
        checkpoints.load(tmp_path / "a.pth")


def header(shape: Any = (2,), offsets: Any = (0, 8), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


SAFETENSORS: dict[str, tuple[Any, int, int | None]] = {
    "header longer than the file": ({"a": header()}, 8, 1 << 62),
    "header just longer than the file": ({"a": header()}, 0, 80),
    "header shorter than it is": ({"a": header()}, 8, 5),
    "offsets outside the file": ({"a": header((4,), (0, 16))}, 8, None),
    "offsets backwards": ({"a": header((2,), (8, 0))}, 8, None),
    "overlap": ({"a": header(), "b": header((2,), (4, 12))}, 12, None),
    "hole": ({"a": header(), "b": header((2,), (12, 20))}, 20, None),
    "bytes that belong to none": ({"a": header()}, 80, None),
    "shape larger than its bytes": ({"a": header((HUGE,))}, 8, None),
    "shape that overflows": ({"a": header((1 << 62, 4))}, 8, None),
    "negative shape": ({"a": header((-2,))}, 8, None),
    "dtype larger than its bytes": ({"a": header(dtype="F64")}, 8, None),
    "unknown dtype": ({"a": header(dtype="F99")}, 8, None),
    "no list of numbers": ({"a": header(("x",))}, 8, None),
    "no tensor": ({"a": 1}, 8, None),
}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(("content", "size", "length"), SAFETENSORS.values(), ids=SAFETENSORS)
def test_safetensors_header_that_lies(content: Any, size: int, length: int | None, tmp_path: Path) -> None:
    encoded = json.dumps(content).encode()
    start = struct.pack("<Q", len(encoded) if length is None else length)
    (tmp_path / "a.safetensors").write_bytes(start + encoded + bytes(size))
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        checkpoints.load(tmp_path / "a.safetensors")


def test_safetensors_header_nested_beyond_the_stack(tmp_path: Path) -> None:
    encoded = b'{"a":' * 1_000_000
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded)
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        checkpoints.load(tmp_path / "a.safetensors")
