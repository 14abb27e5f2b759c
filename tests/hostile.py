"""What hostile files are made of."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

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


def storage_bytes(tensor: torch.Tensor) -> bytes:
    """Give what torch pickles for a tensor's storage."""
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # It is what pickling a tensor does, and deprecated.
        torch.save(tensor.storage(), file, _use_new_zipfile_serialization=False)
    return file.getvalue()
