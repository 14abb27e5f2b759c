"""One server process, from its first connection to its last answer."""

from __future__ import annotations

import gc
import sys
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from server.api.parts import Parts
from server.edge.connection import bounded
from server.hosting.lifecycle import Lifecycle
from server.settings import Settings

# Between two calls the engine's thread needs Python's lock for some 0.1 ms. While the event loop is busy it
# waits so long for it; the default, 5 ms, is longer than many a call.
SWITCH_S = 0.0005

GC_THRESHOLDS = (20_000, 20, 20)
"""Objects, and collections of younger ones, after which the garbage collector looks again."""

log = structlog.get_logger(__name__)


class DrainingServer(uvicorn.Server):
    """A server that answers what it accepted before it ends.

    After the first signal it still listens, so that new requests get an honest 503 and probes see the change.
    It ends when every accepted request is computed; uvicorn then waits until the answers are written.
    A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle) -> None:
        """Serve `config` until `lifecycle` is drained."""
        super().__init__(config)
        self._lifecycle = lifecycle
        self._settled = False

    # uvicorn's own handler would raise the signal again at the end, and the exit code would not be 0.
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, end on the second."""
        if self._lifecycle.draining:
            self.should_exit = self.force_exit = True
        self._lifecycle.drain()

    async def on_tick(self, counter: int) -> bool:
        """Settle once all models are there, end once all is done; uvicorn asks ten times a second."""
        if self._lifecycle.drained:
            self.should_exit = True
        if not self._settled and self._lifecycle.ready:
            self._settled = True
            _settle()  # once more, since torch came with the first model
        return await super().on_tick(counter)


def run(app: FastAPI, settings: Settings) -> bool:
    """Serve an app of `create_app` until a signal; return whether every accepted request was answered."""
    parts: Parts = app.state.parts
    server = DrainingServer(server_config(app, settings), parts.lifecycle)
    sys.setswitchinterval(SWITCH_S)
    _settle()
    server.run()
    return not server.force_exit


def _settle() -> None:
    """Keep what is there now, which stays, from Python's garbage collector, and let it look less often.

    To look through it takes tens of milliseconds, and holds everybody up every few hundred requests; what a
    request leaves behind is looked at several times while it is made.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn is to serve an app."""
    connection = settings.connection
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=bounded(connection),
        ssl_certfile=connection.certfile,
        ssl_keyfile=connection.keyfile,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )
