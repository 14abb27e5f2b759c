"""What the engine thread measures, its labels looked up once."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Histogram

from server.hosting.version_key import VersionKey
from server.metrics import Metrics
from server.scheduling.scheduler import Drop


class Meters:
    """The metrics of one model version's rows and calls."""

    def __init__(self, metrics: Metrics, model: VersionKey) -> None:
        """Write into `metrics` under the model's name and version."""
        self._metrics = metrics
        self._model = model
        self._queue_wait = metrics.queue_wait.labels(*model)
        self._batch_rows = metrics.batch_rows.labels(*model)
        self._error = metrics.prediction_error.labels(*model)
        self._calls: dict[tuple[str, int], Histogram] = {}
        self._computed: dict[str, Callable[[float], None]] = {}
        self._padding: dict[str, Callable[[float], None]] = {}

    def call(self, lane: str, *, rows: int, width: int, slots: int, seconds: float) -> None:
        """Record an engine call.

        Args:
            lane: its kind.
            rows: images in it.
            width: rows that they count as.
            slots: rows that the engine computed for them, padding included.
            seconds: how long it took.
        """
        self._batch_rows.observe(rows)
        calls = self._calls.get((lane, slots))
        if calls is None:
            calls = self._metrics.engine_call.labels(*self._model, lane, slots)
            self._calls[lane, slots] = calls
            self._computed[lane] = self._metrics.computed_rows.labels(*self._model, lane).inc
            self._padding[lane] = self._metrics.padding_rows.labels(*self._model, lane).inc
        calls.observe(seconds)
        self._computed[lane](slots)
        if slots > width:
            self._padding[lane](slots - width)

    def start(self, waited_s: float) -> None:
        """Record a row's first call and how long it waited for it."""
        self._queue_wait.observe(waited_s)

    def finish(self, error_s: float) -> None:
        """Record how much later than predicted a row was done."""
        self._error.observe(error_s)

    def drop(self, reason: Drop, *, started: bool) -> None:
        """Record a row that was dropped."""
        self._metrics.dropped_rows.labels(*self._model, reason, "compute" if started else "queue").inc()
