"""Checkpoints that ask for more than loading weights needs are refused, without a side effect."""

from __future__ import annotations

import builtins
import functools
import io
import operator
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import official
import pytest
import torch
from hostile import Call, storage_bytes

from models import checkpoints
from models.checkpoints import inert
from models.errors import CheckpointError, UnsafeCheckpointError


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
