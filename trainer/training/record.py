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

LOG_FILE = "log.jsonl"


class Record:
    """Writes `log.jsonl`, TensorBoard's files and `grids/` into a run's folder, going on where they end.

    Every line of the log has the images seen, what was measured, and the time (UTC).
    """

    def __init__(self, directory: Path) -> None:
        self._grids = directory / "grids"
        self._grids.mkdir(parents=True, exist_ok=True)
        self._log = (directory / LOG_FILE).open("a", buffering=1)
        self._board = SummaryWriter(directory / "tensorboard")

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
