"""Starting, ready, draining: what the server takes on and when it may end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engines.base import Engine
from server.errors import DrainingError, NotReadyError
from server.hosting.catalogue import Catalogue, ServedModel
from server.scheduling.worker import Worker

LOADING_RETRY_S = 5.0


class Lifecycle:
    """Knows whether new requests are taken, and how many accepted ones are not answered yet."""

    def __init__(self, catalogue: Catalogue, worker: Worker) -> None:
        """Start in the state that takes requests for every model that is ready."""
        self._catalogue = catalogue
        self._worker = worker
        self._draining = False
        self._accepted = 0

    @property
    def draining(self) -> bool:
        """Whether the end has been asked for."""
        return self._draining

    @property
    def drained(self) -> bool:
        """Whether the end has been asked for and every accepted request has its answer."""
        return self._draining and not self._accepted

    def drain(self) -> None:
        """Take nothing new from now on. Safe to call from a signal handler."""
        self._draining = True

    def ready_engine(self, model: ServedModel) -> Engine[Any]:
        """Return the engine that takes a request now.

        Raises:
            DrainingError: the end has been asked for.
            NotReadyError: the model is loading, or failed.
        """
        if self._draining:
            raise DrainingError("the server finishes its last requests", self._worker.backlog_s())
        if model.engine is None:
            raise NotReadyError(f"model {model.key} is not ready: {model.reason}", LOADING_RETRY_S)
        return model.engine

    @contextmanager
    def accept(self) -> Iterator[None]:
        """Count a request as accepted while the block runs."""
        self._accepted += 1
        try:
            yield
        finally:
            self._accepted -= 1

    def reasons(self) -> list[str]:
        """Return why the server is not ready; empty when it is."""
        reasons = [f"{model.key}: {model.reason}" for model in self._catalogue if model.engine is None]
        return ["draining", *reasons] if self._draining else reasons
