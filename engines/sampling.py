"""Many images from one engine, without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from engines.base import Engine, ImageRequest, Row

R = TypeVar("R", bound=Row)
T = TypeVar("T")


def generate(
    engine: Engine[R], requests: Sequence[ImageRequest], progress: Progress
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the image of each request, (H, W, 3) uint8, in the order of the requests.

    Raises:
        InvalidRequestError: the model cannot make one of the images.
    """
    return finish(engine, requests, progress, engine.image)


def finish(
    engine: Engine[R], requests: Sequence[ImageRequest], progress: Progress, result: Callable[[R], T]
) -> Iterator[T]:
    """Yield the result of each request's finished row, in the order of the requests.

    As many rows as fit one call are kept together from start to end.

    Raises:
        InvalidRequestError: the model cannot make one of the images.
    """
    resolved = [engine.resolve(request) for request in requests]
    task = progress.add_task("images", total=len(resolved))
    width = min(engine.capacity, engine.max_rows)
    for start in range(0, len(resolved), width):
        rows: list[R] = []
        try:
            rows.extend(engine.open(request) for request in resolved[start : start + width])
            while unfinished := [row for row in rows if row.calls_left]:
                engine.step([row for row in unfinished if row.lane == unfinished[0].lane])
            yield from (result(row) for row in rows)
        finally:
            for row in rows:
                engine.close(row)
        progress.advance(task, len(rows))
