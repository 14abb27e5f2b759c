"""Starting, ready, draining: what the server takes on and when it may end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engines.base import Engine
from server.errors import DrainingError
from server.hosting.catalogue import Catalogue, ModelState, ServedModel
from server.hosting.host import Host
from server.scheduling.worker import Worker


class Lifecycle:
    """Knows whether new requests are taken, and how many accepted ones are not answered yet."""

    def __init__(self, catalogue: Catalogue, host: Host, worker: Worker) -> None:
        """Start in the state that takes requests for every model that is ready."""
        self._catalogue = catalogue
        self._host = host
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

    async def engine(self, model: ServedModel, within_s: float) -> Engine[Any]:
        """Return the engine that takes a request now, loaded within `within_s` seconds if need be.

        The caller submits the rows before it awaits anything else.

        Raises:
            DrainingError: the end has been asked for.
            NotReadyError: the model is loading, or failed.
        """
        self._check_draining()
        engine = await self._host.engine(model, within_s)
        self._check_draining()
        return engine

    @contextmanager
    def accept(self) -> Iterator[None]:
        """Count a request as accepted while the block runs."""
        self._accepted += 1
        try:
            yield
        finally:
            self._accepted -= 1

    @property
    def ready(self) -> bool:
        """Whether every model takes requests, at least in its default version."""
        starting = any(model.state is ModelState.STARTING for model in self._catalogue)
        failed = any(model.failed for model in self._catalogue.default_versions)
        return not (self._draining or starting or failed)

    def reasons(self) -> list[str]:
        """Return what is still to be done or went wrong, even if the server is ready all the same."""
        unwell = (ModelState.STARTING, ModelState.FAILED)
        return [
            *(["draining"] if self._draining else []),
            *(f"{model.key}: {model.reason}" for model in self._catalogue if model.state in unwell),
            *(f"{name} was not switched: {reason}" for name, reason in self._host.refusals.items()),
        ]

    def _check_draining(self) -> None:
        if self._draining:
            raise DrainingError("the server finishes its last requests", self._worker.backlog_s())
