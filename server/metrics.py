"""What the server measures, in base units, for Prometheus."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

from server.api.problems import kind_of
from server.errors import RejectedError
from server.hosting.catalogue import ModelState, ServedModel
from server.hosting.version_key import VersionKey

CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
WAIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
LOAD_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
ERROR_SECONDS = (-5, -1, -0.25, -0.1, -0.025, -0.01, -0.0025, 0, 0.0025, 0.01, 0.025, 0.1, 0.25, 1, 5)
ENCODE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
BATCH_ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 64)


class Metrics:
    """The metrics of one app, in a collector registry of its own."""

    def __init__(self, server_version: str) -> None:
        """Register every metric, the process's own too; `server_version` goes into the build info."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.request = Histogram(
            "ddo_request_seconds",
            "Time from a request for images to its answer, by outcome.",
            ["outcome"],
            registry=registry,
            buckets=REQUEST_SECONDS,
        )
        # To find a child by its labels costs as much as to count, so every request does not.
        self._outcome = cache(self.request.labels)
        self.rejections = Counter(
            "ddo_rejections", "Requests refused before anything was computed.", ["reason"], registry=registry
        )
        self.queue_wait = Histogram(
            "ddo_queue_wait_seconds",
            "Time from a row's arrival to its first engine call.",
            ["model", "version"],
            registry=registry,
            buckets=WAIT_SECONDS,
        )
        self.engine_call = Histogram(
            "ddo_engine_call_seconds",
            "Time of one engine call, by its kind and by how many rows it computed, padding included.",
            ["model", "version", "lane", "bucket"],
            registry=registry,
            buckets=CALL_SECONDS,
        )
        self.batch_rows = Histogram(
            "ddo_batch_rows",
            "Rows of one engine call.",
            ["model", "version"],
            registry=registry,
            buckets=BATCH_ROWS,
        )
        self.computed_rows = Counter(
            "ddo_computed_rows",
            "Rows of all engine calls, padding included.",
            ["model", "version", "lane"],
            registry=registry,
        )
        self.padding_rows = Counter(
            "ddo_padding_rows",
            "Rows of engine calls that were computed only to fill a batch size.",
            ["model", "version", "lane"],
            registry=registry,
        )
        self.prediction_error = Histogram(
            "ddo_prediction_error_seconds",
            "Time by which an image was done later (below 0: sooner) than was predicted when it came.",
            ["model", "version"],
            registry=registry,
            buckets=ERROR_SECONDS,
        )
        self.pending = Gauge(
            "ddo_pending_compute_seconds", "Engine time that accepted rows still need.", registry=registry
        )
        self.dropped_rows = Counter(
            "ddo_cancelled_rows",
            "Rows dropped before they were finished: cancelled by the client, or past their deadline; "
            "while they waited (queue) or were being made (compute).",
            ["model", "version", "reason", "stage"],
            registry=registry,
        )
        self.images = Counter(
            "ddo_images", "Images given to clients.", ["model", "version", "format"], registry=registry
        )
        self.job_images = Counter(
            "ddo_job_images", "Images of jobs that are on the disk.", ["model", "version"], registry=registry
        )
        self._jobs = Gauge("ddo_jobs", "Jobs that are kept.", ["state"], registry=registry)
        self.first_preview = Histogram(
            "ddo_first_preview_seconds",
            "Time from a streamed request's arrival to its first preview's file.",
            ["model", "version"],
            registry=registry,
            buckets=WAIT_SECONDS,
        )
        self.encode = Histogram(
            "ddo_encode_seconds",
            "Time to encode one image.",
            ["format"],
            registry=registry,
            buckets=ENCODE_SECONDS,
        )
        self._queue_rows = Gauge(
            "ddo_queue_rows",
            "Rows waiting for a place in an engine.",
            ["model", "version"],
            registry=registry,
        )
        self._active_rows = Gauge(
            "ddo_active_rows", "Rows that hold a place in an engine.", ["model", "version"], registry=registry
        )
        self._call_cost = Gauge(
            "ddo_call_cost_seconds",
            "Time of an engine call by its kind and its number of rows, measured when they were first tried.",
            ["model", "version", "kind", "rows"],
            registry=registry,
        )
        self._model_state = Enum(
            "ddo_model_state",
            "What a served model version is doing.",
            ["model", "version"],
            states=list(ModelState),
            registry=registry,
        )
        self._model_memory = Gauge(
            "ddo_model_memory_bytes",
            "Memory that a version's engine holds: weights, and states of as many rows as it takes.",
            ["model", "version"],
            registry=registry,
        )
        self.model_load = Histogram(
            "ddo_model_load_seconds",
            "Time to load a version and to check its golden image, by outcome.",
            ["model", "outcome"],
            registry=registry,
            buckets=LOAD_SECONDS,
        )
        self.swap = Histogram(
            "ddo_swap_seconds",
            "Time from the wish for another default version to its first requests, or to its refusal.",
            ["model", "outcome"],
            registry=registry,
            buckets=LOAD_SECONDS,
        )
        self._model = Info("ddo_model", "A served model version.", ["model", "version"], registry=registry)
        Info("ddo_build", "The running server.", registry=registry).info(
            {"version": server_version, "python": platform.python_version()}
        )

    def add_model(self, model: ServedModel, *, waiting: Callable[[], int], active: Callable[[], int]) -> None:
        """Show a served version, and its rows as the two functions give them at every scrape."""
        spec = model.version.spec
        self._model.labels(*model.key).info({"family": spec.family, "round": str(spec.lineage.round)})
        self._queue_rows.labels(*model.key).set_function(waiting)
        self._active_rows.labels(*model.key).set_function(active)
        self.show_state(model)

    def show_state(self, model: ServedModel) -> None:
        """Show what a served version is doing and how much memory it holds."""
        self._model_state.labels(*model.key).state(model.state)
        self._model_memory.labels(*model.key).set(model.held_nbytes)

    def remove_model(self, model: VersionKey) -> None:
        """Stop showing the state of a version that is no longer served; what it did stays counted."""
        for metric in (
            self._model,
            self._model_state,
            self._model_memory,
            self._queue_rows,
            self._active_rows,
        ):
            metric.remove(*model)

    def add_jobs(self, counts: Mapping[str, Callable[[], int]]) -> None:
        """Show how many jobs there are in each state, as the functions give them at every scrape."""
        for state, count in counts.items():
            self._jobs.labels(state).set_function(count)

    def add_costs(self, model: VersionKey, costs: Mapping[str, Mapping[int, float]]) -> None:
        """Show what calls of a served version cost (`Engine.costs`)."""
        for kind, calls in costs.items():
            for rows, seconds in calls.items():
                self._call_cost.labels(*model, kind, rows).set(seconds)

    @contextmanager
    def observe_request(self) -> Iterator[None]:
        """Measure a request; an error that leaves the block gives its outcome."""
        started = time.perf_counter()
        outcome = "ok"
        try:
            yield
        except Exception as error:
            outcome = kind_of(error).slug
            if isinstance(error, RejectedError):
                self.rejections.labels(outcome).inc()
            raise
        finally:
            self._outcome(outcome).observe(time.perf_counter() - started)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
