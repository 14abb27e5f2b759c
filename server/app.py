"""The app: its parts put together, from start to end."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from models.references import Reference
from models.version import ModelVersion
from server.access.door import Door, is_loopback, open_door
from server.access.quotas import Quotas
from server.api import admin, health, images, jobs, live_load, models, pages, requests
from server.api.guard import require_admin, require_key
from server.api.job_schemas import JobRequest
from server.api.middleware import QUIET_PATHS, RequestContext
from server.api.openai_error import ErrorAnswer
from server.api.openapi import Api
from server.api.parts import Parts
from server.api.problems import document, handle
from server.api.schemas import GenerateRequest
from server.edge.browsers import OwnPagesOnly
from server.edge.secure_headers import SecureHeaders
from server.encoding import Encoder
from server.errors import ForbiddenError, ServeError, UnauthenticatedError
from server.hosting.catalogue import Catalogue
from server.hosting.follower import Follower
from server.hosting.host import Host
from server.hosting.lifecycle import Lifecycle
from server.hosting.loader import Loader
from server.hosting.memory import MemoryBudget
from server.hosting.sources import find_sources
from server.hosting.warmup import EngineLoader
from server.jobs.jobs import Jobs
from server.metrics import Metrics
from server.openai import routes as openai
from server.openai.schemas import CompletedImage, ImagesRequest, PartialImage
from server.running import Running
from server.scheduling.policy import POLICIES
from server.scheduling.worker import Worker
from server.service import Service
from server.settings import Settings
from server.web.page import add_page

if TYPE_CHECKING:
    from server.tracing.tracing import Tracing

STOP_TIMEOUT_S = 5.0


def create_app(
    settings: Settings,
    versions: Sequence[ModelVersion],
    load: EngineLoader,
    references: Sequence[Reference] = (),
    tracing: Tracing | None = None,
) -> FastAPI:
    """Put an app together. It loads its models once it is started, and answers `/livez` meanwhile.

    Args:
        settings: the configuration.
        versions: the model versions to serve; the first one is the default.
        load: makes an engine of a version, such as `engines.load`; called on threads of its own.
        references: what the versions were opened by; other versions of these models can be had later.
        tracing: makes spans of requests; None makes none, at no cost.

    Raises:
        ValueError: no model, a version twice, or no API keys where they are needed.
    """
    door = open_door(settings.access, settings.host)
    server_version = _server_version()
    metrics = Metrics(server_version)
    worker = Worker(
        policy=POLICIES[settings.policy],
        max_waiting=settings.queue_rows,
        max_pending_s=settings.pending_s,
        metrics=metrics,
    )
    encoder = Encoder(settings.encoder_threads, metrics)
    catalogue = Catalogue(versions)
    sources = find_sources(references)
    host = Host(
        catalogue,
        worker,
        Loader(load, settings.engine),
        metrics,
        sources=sources,
        budget=MemoryBudget(settings.memory_bytes),
    )
    follower = Follower(catalogue, host, sources.values(), settings.registry_poll_s)
    lifecycle = Lifecycle(catalogue, host, worker)
    service = Service(
        settings,
        catalogue=catalogue,
        lifecycle=lifecycle,
        worker=worker,
        encoder=encoder,
        metrics=metrics,
        tracing=tracing,
    )
    metrics.pending.set_function(worker.backlog_s)

    job_book = Jobs(settings, catalogue=catalogue, lifecycle=lifecycle, worker=worker, metrics=metrics)

    async def look_after_models() -> None:
        await host.start()
        await follower.run()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        await job_book.start()
        looking_after = asyncio.create_task(look_after_models())
        try:
            yield
        finally:
            looking_after.cancel()
            await job_book.stop()
            await asyncio.to_thread(worker.stop, STOP_TIMEOUT_S)
            encoder.close()
            if tracing:
                await asyncio.to_thread(tracing.shutdown)

    app = Api(
        title="ddo-serve",
        version=server_version,
        bodies=(GenerateRequest, JobRequest, ImagesRequest, admin.AnyVersion, admin.OneVersion),
        answers=(PartialImage, CompletedImage, ErrorAnswer),
        summary="Images from EDM, EDM2 and VAR models, Direct Discriminative Optimization included.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=document(ForbiddenError),
        telemetry=_telemetry(tracing),
    )
    app.state.parts = Parts(
        settings=settings,
        door=door,
        quotas=Quotas(),
        catalogue=catalogue,
        host=host,
        encoder=encoder,
        lifecycle=lifecycle,
        worker=worker,
        service=service,
        jobs=job_book,
        running=Running(),
        metrics=metrics,
    )
    if tracing is None:  # FastAPI's own way makes the spans.
        app.direct = {("POST", "/generate"): images.generate}
    _keep_browsers_out(app, settings, door)
    app.add_middleware(RequestContext)
    app.add_middleware(SecureHeaders)
    app.add_exception_handler(ServeError, handle)
    app.add_exception_handler(HTTPException, handle)
    app.add_exception_handler(RequestValidationError, handle)
    for routes in (images, requests, jobs, models):
        app.include_router(
            routes.router,
            dependencies=[Depends(require_key)],
            responses=document(UnauthenticatedError),
        )
    app.include_router(
        admin.router,
        dependencies=[Depends(require_admin)],
        responses=document(UnauthenticatedError, ForbiddenError),
    )
    app.include_router(openai.router, dependencies=[Depends(require_key)])
    for routes in (health, live_load, pages):
        app.include_router(routes.router)
    add_page(app)
    return app


def _telemetry(tracing: Tracing | None) -> TelemetryConfig:
    """Return what FastAPI tells OpenTelemetry: spans of requests, and those only if there is tracing."""
    return {
        "tracing": tracing is not None,
        "tracer_provider": tracing.provider if tracing else None,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
        "exclude": lambda scope: scope["path"] in QUIET_PATHS,
    }


def _keep_browsers_out(app: FastAPI, settings: Settings, door: Door) -> None:
    access = settings.access
    if not door.guarded:
        hosts = access.hosts if is_loopback(settings.host) else (access.hosts or ("*",))
        app.add_middleware(OwnPagesOnly, hosts=hosts, origins=access.cors_origins)
    if access.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=access.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["*"],
        )


def _server_version() -> str:
    try:
        return importlib.metadata.version("ddo-serve")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
