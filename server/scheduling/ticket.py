"""One image's way through the server."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engines.base import ImageRequest, Leg, Row
from server.hosting.version_key import VersionKey
from server.scheduling.preview import PreviewBox
from server.scheduling.priority import Priority
from server.tracing.journal import Journal

Image: TypeAlias = npt.NDArray[np.uint8]


@dataclass(slots=True, eq=False, kw_only=True)
class Ticket:
    """A request for one image, the row that makes it and the promise of its pixels.

    Times are seconds on the worker's clock. Whoever waits may cancel `future` from any thread; the row is
    then dropped before the next engine call.

    Attributes:
        model: the served version that makes it.
        request: what to make, resolved by the model's engine.
        arrival: when the request came.
        deadline: when nobody wants it any more.
        path: the engine calls that it needs, in their order (`Engine.path`).
        priority: how soon it is wanted.
        promised: whether it was accepted because it would be done by its deadline.
        previews: where its previews go, if somebody may want them.
        journal: where its way is noted, if it is traced.
        future: gets the image, (H, W, 3) uint8 RGB, or a ServeError.
        row: the engine's row once it is open.
        begins: when its request's last row should take part in its first engine call.
        forecast: seconds from its arrival to its pixels, as the costs of calls predicted.
        expected: when its pixels should be there: the forecast, corrected by what others came to.
        started: when the turn of its first engine call began.
        finished: when its pixels were there.
    """

    model: VersionKey
    request: ImageRequest
    arrival: float
    deadline: float
    path: Sequence[Leg]
    priority: Priority = Priority.INTERACTIVE
    promised: bool = False
    previews: PreviewBox | None = None
    journal: Journal | None = None
    future: Future[Image] = field(default_factory=Future)
    row: Row | None = None
    begins: float | None = None
    forecast: float | None = None
    expected: float | None = None
    started: float | None = None
    finished: float | None = None

    @property
    def cancelled(self) -> bool:
        """Whether whoever waited has left."""
        return self.future.cancelled()

    @property
    def lane(self) -> str:
        """The kind of the next engine call."""
        return self.path[0].lane if self.row is None else self.row.lane

    @property
    def calls_left(self) -> int:
        """Engine calls that are still to be made."""
        return sum(leg.calls for leg in self.path) if self.row is None else self.row.calls_left
