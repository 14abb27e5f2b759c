"""Pickles read as data: a stack machine with no way to call, import or look up anything.

`pickle.Unpickler` with an allow-list is not enough for files from strangers. It allocates what an opcode's
argument claims (LONG_BINPUT, BINBYTES8, FRAME), hashes tuples nested deep enough to overflow the C stack, and
BUILD runs `__setstate__`. Here `pickletools` of the standard library splits the file into opcodes, and the
machine below knows only those that weights are written with. Names not on the caller's list are refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO

from models.errors import CheckpointError, UnsafeCheckpointError

MAX_OPCODES = 5_000_000
"""Opcodes a pickle may have: the largest published network needs about 100,000. It bounds the memory that
a file of one-byte opcodes, each making an object, could take."""

_KEY_TYPES = (str, int, float, bool, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the reader's list allows; `make` is what a call of it does here, None: it is refused."""

    name: str
    make: Callable[..., Any] | None


@dataclass(slots=True)
class Inert:
    """What a pickle wanted to be an object: its class, its constructor's arguments, its state."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


class PickleReader:
    """Reads pickles into plain values, `Inert` records and what the allowed names make.

    Args:
        allowed: `module.name` -> function that stands in for it, or None for a name that may occur but not
            be called. Nothing else resolves.
        persistent_load: stands in for persistent ids; without it they are refused.
    """

    def __init__(
        self,
        allowed: Mapping[str, Callable[..., Any] | None],
        persistent_load: Callable[[Any], Any] | None = None,
    ) -> None:
        self._allowed = allowed
        self._persistent_load = persistent_load

    def load(self, file: BinaryIO) -> Any:
        """Read one pickle from where `file` stands; it is left behind the pickle's STOP.

        `file.read(n)` must not allocate more than what is left (a memory map or BytesIO).

        Raises:
            UnsafeCheckpointError: the pickle asks for a name, a call or an opcode that weights never need.
            CheckpointError: the pickle is damaged or truncated.
        """
        machine = _Machine(self._allowed, self._persistent_load)
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if count == MAX_OPCODES:
                    raise UnsafeCheckpointError(f"the pickle has more than {MAX_OPCODES:,} opcodes")
                machine.run(opcode.name, argument)
            return machine.result()
        except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"the pickle is damaged or truncated: {error!r}") from error


class _Machine:
    """The pickle virtual machine of PEP 307 and PEP 3154, less everything that acts."""

    def __init__(
        self,
        allowed: Mapping[str, Callable[..., Any] | None],
        persistent_load: Callable[[Any], Any] | None,
    ) -> None:
        self._allowed = allowed
        self._persistent_load = persistent_load
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        elif opcode not in _IGNORED:
            raise UnsafeCheckpointError(f"the pickle uses the opcode {opcode}, which weights never need")

    def result(self) -> Any:
        (value,) = self._stack
        return value

    def mark(self, _: Any) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def pop(self, _: Any) -> None:
        self._stack.pop()

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def tuple(self, _: Any) -> None:
        items = tuple(self._pop_mark())
        self._stack.append(items)

    def tuple_of(self, length: int) -> None:
        items = tuple(self._stack.pop() for _ in range(length))
        self._stack.append(items[::-1])

    def append(self, _: Any) -> None:
        item = self._stack.pop()
        self._top(list).append(item)

    def appends(self, _: Any) -> None:
        items = self._pop_mark()
        self._top(list).extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._top(dict)[_checked_key(key)] = value

    def set_items(self, _: Any) -> None:
        items = self._pop_mark()
        self._top(dict).update((_checked_key(items[i]), items[i + 1]) for i in range(0, len(items), 2))

    def add_items(self, _: Any) -> None:
        items = self._pop_mark()
        self._top(set).update(_checked_key(item) for item in items)

    def _top(self, kind: type) -> Any:
        # Exact types: a subclass could bring methods of its own.
        if type(self._stack[-1]) is not kind:
            raise CheckpointError(f"the pickle is damaged: it fills a {type(self._stack[-1]).__name__}")
        return self._stack[-1]

    def global_name(self, argument: str) -> None:
        module, name = argument.split(" ", 1)
        self._push_global(module, name)

    def stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._push_global(module, name)

    def _push_global(self, module: Any, name: Any) -> None:
        path = f"{module}.{name}"
        # A dot in the name is an attribute look-up, which could spell an allowed path from another module.
        if (
            not (isinstance(module, str) and isinstance(name, str))
            or "." in name
            or path not in self._allowed
        ):
            raise UnsafeCheckpointError(
                f"the pickle asks for {path[:200]}; weights never need it and nothing from a file is run"
            )
        self._stack.append(Global(path, self._allowed[path]))

    def call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Global) or function.make is None or type(arguments) is not tuple:
            raise UnsafeCheckpointError(f"the pickle calls {_describe(function)}, which is refused")
        self._stack.append(function.make(*arguments))

    def build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif not (type(target) is dict and type(state) is dict):
            # A dict's attributes (torch's `_metadata`) are of no use and are dropped; the rest is refused.
            raise UnsafeCheckpointError(f"the pickle sets the state of {_describe(target)}, which is refused")

    def persistent_id(self, _: Any) -> None:
        if self._persistent_load is None:
            raise UnsafeCheckpointError("the pickle refers to objects outside itself (a persistent id)")
        self._stack.append(self._persistent_load(self._stack.pop()))


def _checked_key(key: Any) -> Any:
    if type(key) not in _KEY_TYPES:
        raise UnsafeCheckpointError(f"the pickle uses a {type(key).__name__} as a key")
    return key


def _describe(value: Any) -> str:
    return value.name if isinstance(value, (Global, Inert)) else f"a {type(value).__name__}"


_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})

_LITERALS = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    }
)

_CONSTANTS: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
        "EMPTY_TUPLE": tuple,
        "EMPTY_LIST": list,
        "EMPTY_DICT": dict,
        "EMPTY_SET": set,
    }
)

_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = MappingProxyType(
    {
        "MARK": _Machine.mark,
        "POP": _Machine.pop,
        "BINPUT": _Machine.put,
        "LONG_BINPUT": _Machine.put,
        "MEMOIZE": _Machine.memoize,
        "BINGET": _Machine.get,
        "LONG_BINGET": _Machine.get,
        "TUPLE": _Machine.tuple,
        "TUPLE1": lambda machine, _: machine.tuple_of(1),
        "TUPLE2": lambda machine, _: machine.tuple_of(2),
        "TUPLE3": lambda machine, _: machine.tuple_of(3),
        "APPEND": _Machine.append,
        "APPENDS": _Machine.appends,
        "SETITEM": _Machine.set_item,
        "SETITEMS": _Machine.set_items,
        "ADDITEMS": _Machine.add_items,
        "GLOBAL": _Machine.global_name,
        "STACK_GLOBAL": _Machine.stack_global,
        "REDUCE": _Machine.call,
        "NEWOBJ": _Machine.call,
        "BUILD": _Machine.build,
        "BINPERSID": _Machine.persistent_id,
    }
)
