"""Files from strangers: each is refused with a clear error, nothing runs, and memory stays bounded."""

from __future__ import annotations

import builtins
import functools
import io
import json
import operator
import os
import pickle
import struct
import tracemalloc
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import official
import pytest
import torch
from official import EDM_INIT, VAR_INIT
from reference import fill
from safetensors.torch import save_file

from models import build, checkpoints
from models.checkpoints import inert
from models.checkpoints.tensors import load_storage, rebuild_tensor
from models.errors import CheckpointError, UnsafeCheckpointError

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Call:
    """Pickles as a call of `function`, optionally with a state to set afterwards."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    state: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments, self.state

    def __call__(self) -> None:
        """Exist, so that the result of a call can be what another one calls."""


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def bounded() -> Iterator[None]:
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * MEBIBYTE


def storage_bytes(tensor: torch.Tensor) -> bytes:
    """Give what torch pickles for a tensor's storage."""
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # It is what pickling a tensor does, and deprecated.
        torch.save(tensor.storage(), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def touch(canary: Path) -> str:
    return f"touch {canary}"


def sing(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w')"


def nested(canary: Path) -> bytes:
    return pickle.dumps(Call(os.system, (touch(canary),)))


def spliced(canary: Path) -> bytes:
    """Give a storage whose fourth pickle, its description, runs a command."""
    data = storage_bytes(torch.ones(2))
    place = data.index(b"\x80\x02(X\x07\x00\x00\x00storage")
    return data[:place] + nested(canary) + data[place:]


PAYLOADS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda canary: Call(os.system, (touch(canary),)),
    "eval": lambda canary: Call(eval, (sing(canary),)),
    "exec": lambda canary: Call(exec, (sing(canary),)),
    "getattr chain": lambda canary: Call(Call(getattr, (os, "system")), (touch(canary),)),
    "attrgetter": lambda canary: Call(operator.attrgetter("system"), (os,)),
    "partial": lambda canary: functools.partial(os.system, touch(canary)),
    "import": lambda canary: Call(builtins.__import__, ("antigravity",)),
    "torch.load": lambda canary: Call(torch.load, (io.BytesIO(nested(canary)),)),
    "pickle.loads": lambda canary: Call(pickle.loads, (nested(canary),)),
    "storage that is a pickle": lambda canary: Call(torch.storage._load_from_bytes, (nested(canary),)),
    "storage with a pickle inside": lambda canary: Call(torch.storage._load_from_bytes, (spliced(canary),)),
    "hooks of a tensor": lambda canary: Call(
        torch._utils._rebuild_tensor_v2,
        (torch.ones(2).storage(), 0, (2,), (1,), False, OrderedDict(a=Call(os.system, (touch(canary),)))),
    ),
    "state of a dictionary": lambda canary: Call(OrderedDict, (), {"a": Call(os.system, (touch(canary),))}),
    "state of a string": lambda canary: Call(str, ("a",), {"a": 1}),
}


def without_modules(payload: Any) -> bytes:
    """Pickle `payload`; modules, which pickle refuses, are imported by name as an attacker would."""

    class Pickler(pickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            return (builtins.__import__, (value.__name__,)) if value in (os, builtins) else NotImplemented

    file = io.BytesIO()
    Pickler(file, protocol=4).dump(payload)
    return file.getvalue()


@pytest.mark.parametrize("depth", ["top", "ema", "state"])
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_code_in_a_pickle(payload: Callable[[Path], Any], depth: str, tmp_path: Path, canary: Path) -> None:
    content = payload(canary)
    path = tmp_path / "hostile.pkl"
    with official.published_modules():
        if depth == "ema":
            content = {"ema": content}
        elif depth == "state":
            content = {"ema": official.bare("Precond", _buffers={"a": content})}
        path.write_bytes(without_modules(content))
    with pytest.raises(UnsafeCheckpointError):
        checkpoints.load(path)
    assert not canary.exists()


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_code_in_an_archive(payload: Callable[[Path], Any], tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "hostile.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("var/data.pkl", without_modules({"weight": payload(canary)}))
        archive.writestr("var/byteorder", "little")
    with pytest.raises(UnsafeCheckpointError):
        checkpoints.load(path)
    assert not canary.exists()


def test_the_canary_sings_for_the_standard_loader(canary: Path) -> None:
    pickle.loads(without_modules({"ema": PAYLOADS["getattr chain"](canary)}))
    assert canary.exists()


def unicode(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()


OPCODES = {
    "attribute of an allowed module": unicode("torch._utils")
    + unicode("sys.modules")
    + pickle.STACK_GLOBAL
    + pickle.STOP,
    "allowed path spelled with a dotted name": unicode("torch")
    + unicode("_utils._rebuild_tensor_v2")
    + pickle.STACK_GLOBAL
    + pickle.STOP,
    "name that is no text": pickle.EMPTY_LIST + pickle.EMPTY_LIST + pickle.STACK_GLOBAL + pickle.STOP,
    "old global": b"cposix\nsystem\n.",
    "instance": b"(S'true'\niposix\nsystem\n.",
    "object": b"(cposix\nsystem\nS'true'\no.",
    "extension 1": pickle.EXT1 + b"\x01.",
    "extension 2": pickle.EXT2 + b"\x01\x00.",
    "extension 4": pickle.EXT4 + b"\x01\x00\x00\x00.",
    "persistent id": unicode("storage") + pickle.BINPERSID + pickle.STOP,
    "old persistent id": b"Pstorage\n.",
    "new object with keywords": pickle.NONE
    + pickle.EMPTY_TUPLE
    + pickle.EMPTY_DICT
    + pickle.NEWOBJ_EX
    + b".",
    "call of a string": unicode("system") + pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.STOP,
    "call of a name that is only named": b"cnumpy\nndarray\n" + pickle.EMPTY_TUPLE + pickle.REDUCE + b".",
    "state of a list": pickle.EMPTY_LIST + pickle.EMPTY_DICT + pickle.BUILD + pickle.STOP,
    "state of an allowed function": b"ctorch._utils\n_rebuild_parameter\n"
    + pickle.EMPTY_DICT
    + pickle.BUILD
    + b".",
    "long of 4 length bytes": pickle.LONG4 + struct.pack("<i", 4) + b"\1\1\1\1" + pickle.STOP,
    "tuple as a key": pickle.EMPTY_DICT + pickle.EMPTY_TUPLE + pickle.NONE + pickle.SETITEM + pickle.STOP,
    "tuple in a set": pickle.EMPTY_SET + pickle.MARK + pickle.EMPTY_TUPLE + pickle.ADDITEMS + pickle.STOP,
    "deeply nested key": pickle.EMPTY_DICT
    + pickle.EMPTY_TUPLE
    + pickle.TUPLE1 * 200_000
    + pickle.NONE
    + pickle.SETITEM
    + pickle.STOP,
}


@pytest.mark.parametrize("opcodes", OPCODES.values(), ids=OPCODES)
def test_opcodes_that_weights_never_need(opcodes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.pkl"
    path.write_bytes(b"\x80\x04" + opcodes)
    with pytest.raises(UnsafeCheckpointError):
        checkpoints.load(path)


CLAIMS = {
    "memo index": pickle.NONE + pickle.LONG_BINPUT + b"\xff\xff\xff\xff" + pickle.STOP,
    "memo index that is not there": pickle.LONG_BINGET + b"\xff\xff\xff\xff" + pickle.STOP,
    "bytes": pickle.BINBYTES8 + struct.pack("<Q", 1 << 62) + b"abc.",
    "text": pickle.BINUNICODE8 + struct.pack("<Q", 1 << 62) + b"abc.",
    "frame": pickle.FRAME + struct.pack("<Q", 1 << 62) + pickle.NONE,
    "deep nesting": pickle.EMPTY_LIST * 1_000 + pickle.APPEND * 999 + pickle.STOP,
    "two values": pickle.NONE + pickle.NONE + pickle.STOP,
    "no value": pickle.STOP,
    "mark that is not there": pickle.TUPLE + pickle.STOP,
    "no stop": pickle.NONE,
    "unknown opcode": b"\xff",
}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("opcodes", CLAIMS.values(), ids=CLAIMS)
def test_claims_that_a_pickle_does_not_keep(opcodes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.pkl"
    path.write_bytes(b"\x80\x04" + opcodes)
    with pytest.raises(CheckpointError):
        checkpoints.load(path)


def test_too_many_opcodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert, "MAX_OPCODES", 1_000)
    reader = inert.PickleReader({})
    filler = (pickle.NONE + pickle.POP) * 499
    assert reader.load(io.BytesIO(filler + pickle.NONE + pickle.STOP)) is None
    with pytest.raises(UnsafeCheckpointError, match="more than 1,000 opcodes"):
        reader.load(io.BytesIO(filler + filler + pickle.NONE + pickle.STOP))


@pytest.mark.usefixtures("bounded")
def test_lists_that_unfold_exponentially(tmp_path: Path) -> None:
    laugh: list[Any] = ["ha"]
    for _ in range(14):
        laugh = [laugh, laugh]
    path = official.write_pickle(tmp_path / "laugh.pkl", official.bare("Precond", _init_kwargs={"a": laugh}))
    with pytest.raises(CheckpointError, match="too many or nested too deep"):
        checkpoints.load(path)


def test_arguments_nested_beyond_the_stack(tmp_path: Path) -> None:
    nest = pickle.EMPTY_LIST * 100_000 + pickle.APPEND * 99_999
    placed = pickle.dumps("PLACE", protocol=4)[11:-1]
    path = official.write_pickle(tmp_path / "nest.pkl", official.bare("Precond", _init_kwargs={"a": "PLACE"}))
    data = path.read_bytes()
    assert data.count(placed) == 1
    path.write_bytes(data.replace(placed, nest + pickle.MEMOIZE))
    with pytest.raises(CheckpointError, match="too many or nested too deep"):
        checkpoints.load(path)


def test_modules_that_unfold_exponentially(tmp_path: Path) -> None:
    module = official.bare("Block")
    for _ in range(64):
        module = official.bare("Block", _modules={"left": module, "right": module})
    module.meta["class_name"] = "Precond"
    with pytest.raises(CheckpointError, match="occurs twice"):
        checkpoints.load(official.write_pickle(tmp_path / "modules.pkl", module))


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
