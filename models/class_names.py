"""Classes by what people call them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from models.errors import ModelError

SUGGESTIONS = 3


class UnknownClassError(ModelError):
    """No class of the model is called so; the message names those that come close."""


def find_class(wanted: str, names: Sequence[str]) -> int:
    """Return the class that `wanted` names.

    Args:
        wanted: a name, in capitals or not, with `_` or `-` for spaces or not; or a class's number in digits,
            where no class is called so.
        names: of the model's classes; index = class.

    Raises:
        UnknownClassError: there is none.
    """
    if wanted in names:
        return names.index(wanted)
    plain = [_plain(name) for name in names]
    if _plain(wanted) in plain:
        return plain.index(_plain(wanted))
    if wanted.isascii() and wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    close = ", ".join(repr(name) for name in close_names(wanted, names))
    hint = f"; did you mean {close}?" if close else "."
    raise UnknownClassError(f"no class is called {wanted!r}{hint}")


def close_names(wanted: str, names: Sequence[str]) -> list[str]:
    """Return the few names that `wanted` may be meant for, the likeliest first.

    Those that begin with it come first, then those that have it as words, then those that are spelt much like
    it; of several the shortest.
    """
    text = _plain(wanted)
    by_plain = {_plain(name): name for name in names}
    holding = [name for name in by_plain if text and f" {text} " in f" {name} "]
    holding.sort(key=lambda name: (not name.startswith(text), len(name)))
    alike = difflib.get_close_matches(text, by_plain, n=SUGGESTIONS)
    return [by_plain[name] for name in dict.fromkeys([*holding, *alike])][:SUGGESTIONS]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())
