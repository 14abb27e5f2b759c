"""The state of a run on disk: written aside, synced, then renamed, so that a kill leaves a whole file."""

from __future__ import annotations

from pathlib import Path
from typing import cast
from zipfile import BadZipFile, ZipFile

import torch

from trainer.data.replacing import replacing
from trainer.errors import TrainerError
from trainer.training.state import State

STATE_FILE = "state.pt"


def save_state(directory: Path, state: State) -> None:
    """Replace `directory`'s state.

    Raises:
        TrainerError: it cannot be written; the previous state is intact.
    """
    for left_by_a_kill in directory.glob(f".{STATE_FILE}.*"):
        left_by_a_kill.unlink(missing_ok=True)
    with replacing(directory / STATE_FILE) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # What a file that cannot be written raises is replaced by what its closing raises.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load_state(directory: Path) -> State | None:
    """Return `directory`'s state, None where there is none yet.

    Raises:
        TrainerError: the file is there but damaged.
    """
    path = directory / STATE_FILE
    if not path.exists():
        return None
    try:
        # torch does not compare the check sums of what it reads.
        with ZipFile(path) as archive:
            if (member := archive.testzip()) is not None:
                raise BadZipFile(f"{member} is not what was written")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise TrainerError(
            f"{path} is damaged ({error}); delete it to start anew, or put back a copy"
        ) from error
    if not isinstance(state, dict) or state.keys() != State.__annotations__.keys():
        raise TrainerError(f"{path} is not the state of a run; move it away to start anew")
    return cast(State, state)
