"""The state of a run on disk: written aside, synced, then renamed, so that a kill leaves a whole file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from trainer.errors import TrainerError

STATE_FILE = "state.pt"


def save_state(directory: Path, state: dict[str, Any]) -> None:
    """Replace `directory`'s state.

    Raises:
        TrainerError: it cannot be written; the previous state is intact.
    """
    temporary = directory / f".{STATE_FILE}.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(directory / STATE_FILE)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise TrainerError(
            f"cannot write the run's state to {directory}: {error}. The previous state is intact."
        ) from error


def load_state(directory: Path) -> dict[str, Any] | None:
    """Return `directory`'s state, None where there is none yet.

    Raises:
        TrainerError: the file is there but damaged.
    """
    path = directory / STATE_FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise TrainerError(f"{path} is damaged ({error}); delete it to start anew") from error
    return state
