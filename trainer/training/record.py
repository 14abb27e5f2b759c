"""What a run leaves to look at: a log, TensorBoard scalars, sample grids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from trainer.data.replacing import replacing

LOG_FILE = "log.jsonl"


class Record:
    """Writes `log.jsonl`, TensorBoard's files and `grids/` into a run's folder, going on where they end.

    Every line of the log has the images seen, what was measured, and the time (UTC).

    Args:
        directory: of the run.
        seen: images that the run goes on from; what was recorded beyond them, by a run that was killed before
            it could save its state, is dropped. None: everything stays.
    """

    def __init__(self, directory: Path, seen: int | None = None) -> None:
        self._grids = directory / "grids"
        self._grids.mkdir(parents=True, exist_ok=True)
        log = directory / LOG_FILE
        if seen is not None and log.exists():
            _drop_beyond(log, seen)
        self._log = log.open("a", buffering=1)
        purged = None if seen is None else seen + 1
        self._board = SummaryWriter(directory / "tensorboard", purge_step=purged)

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        """Record figures after `images` images."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._log.write(json.dumps({"images": images, **values, "time": now}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, images)

    def grid(self, images: int, sheet: Image.Image) -> None:
        """Record a sheet of samples after `images` images."""
        sheet.save(self._grids / f"{images:09d}.png")
        self._board.add_image("samples", np.asarray(sheet), images, dataformats="HWC")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()
        self._board.close()


def _drop_beyond(log: Path, seen: int) -> None:
    kept = []
    for line in log.read_text().splitlines(keepends=True):
        # A kill may leave half a line.
        if not line.endswith("\n") or json.loads(line)["images"] > seen:
            break
        kept.append(line)
    with replacing(log) as file:
        file.write("".join(kept).encode())
