"""How served versions are told apart."""

from __future__ import annotations

from typing import NamedTuple


class VersionKey(NamedTuple):
    """A model's name and the number of one of its versions; 0 for a directory outside a registry."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name}/{self.number}" if self.number else self.name
