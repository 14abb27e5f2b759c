"""Images as they are found, before they become a set to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Original:
    """One image file.

    Attributes:
        name: says in messages which one it is.
        label: its class.
        read: returns its content; raises BadImageError.
    """

    name: str
    label: int
    read: Callable[[], bytes]


class Originals(Protocol):
    """Labelled image files in a fixed order.

    Attributes:
        class_names: index = label.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Original]: ...
