"""What the routes work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from server.access.door import Door
from server.access.quotas import Quotas
from server.encoding import Encoder
from server.hosting.catalogue import Catalogue
from server.hosting.host import Host
from server.hosting.lifecycle import Lifecycle
from server.jobs.jobs import Jobs
from server.metrics import Metrics
from server.running import Running
from server.scheduling.worker import Worker
from server.service import Service
from server.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one app."""

    settings: Settings
    door: Door
    quotas: Quotas
    catalogue: Catalogue
    host: Host
    encoder: Encoder
    lifecycle: Lifecycle
    worker: Worker
    service: Service
    jobs: Jobs
    running: Running
    metrics: Metrics


async def parts_of(request: Request) -> Parts:
    """Return the parts of the app that serves this request."""
    parts: Parts = request.app.state.parts
    return parts


AppParts = Annotated[Parts, Depends(parts_of)]
