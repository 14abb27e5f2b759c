"""A process that trains, and may kill itself inside the write of a state: `DIRECTORY [MOMENT NUMBER]`."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from tiny_runs import losses, tiny_loop

SETTINGS: dict[str, Any] = {
    "images": 480,
    "averages": [{"kind": "power", "std": 0.1}, {"kind": "half-life", "images": 50}],
}


def kill_at(moment: str, number: int) -> None:
    """Arrange for SIGKILL in the write with this number, from 1."""
    calls = iter(range(1, 10**6))

    def now() -> bool:
        return next(calls) == number

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: die() if now() else function(*arguments)

    def halfway(state: object, file: BinaryIO) -> None:
        whole = io.BytesIO()
        save(state, whole)
        if now():
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            die()
        file.write(whole.getvalue())

    save = torch.save
    match moment:
        case "writing":
            torch.save = halfway
        case "syncing":
            os.fsync = before(os.fsync)
        case "renaming":
            Path.replace = before(Path.replace)  # type: ignore[method-assign]


if __name__ == "__main__":
    if len(sys.argv) > 2:
        kill_at(sys.argv[2], int(sys.argv[3]))
    losses(tiny_loop(Path(sys.argv[1]), "edm2", **SETTINGS))
