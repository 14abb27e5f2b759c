"""Previews of images under way: asked for by whoever reads them, made on the engine thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from engines.base import Engine, Row

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Preview:
    """What an image looks like after `call` of its `calls` engine calls; (H, W, 3) uint8 RGB."""

    image: npt.NDArray[np.uint8]
    call: int
    calls: int


class PreviewBox:
    """Holds at most one preview of one row, between the engine thread and one reader.

    A preview is made only when the reader has asked for it, which readers do once they have dealt with the
    one before. So none is made in vain, and a slow reader gets fewer of them without anybody waiting.
    """

    def __init__(self, calls: int, wake: Callable[[], object]) -> None:
        """Serve a row of so many calls; `wake` is called on the engine thread when there is one to take."""
        self._calls = calls
        self._wake = wake
        self._asked: tuple[int, float] | None = None
        self._preview: Preview | None = None

    def ask(self, *, call: int = 1, time: float = -math.inf) -> None:
        """Ask for a preview after the first call from number `call` on that ends at `time` or later."""
        self._asked = call, time

    def take(self) -> Preview | None:
        """Return the preview that was asked for, once, if it is there."""
        preview, self._preview = self._preview, None
        return preview

    def offer(self, engine: Engine[Any], row: Row, now: float) -> None:
        """Make the preview of a row whose call ended at `now`, if it is asked for; on the engine thread.

        One that fails harms nobody: the image is made without.
        """
        call = self._calls - row.calls_left
        if self._asked is None or call < self._asked[0] or now < self._asked[1] or not row.calls_left:
            return
        try:
            image = engine.preview(row)
            if image is not None:
                self._asked = None
                self._preview = Preview(image, call, self._calls)
                self._wake()
        except Exception:
            self._asked = None
            log.exception("preview failed")
