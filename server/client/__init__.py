"""A typed client of this server: `Client`, and `AsyncClient` with the same methods to be awaited.

It imports neither torch nor FastAPI; it needs httpx and httpx-sse (`pip install 'ddo-serve[client]'`).
"""

from server.client.async_client import AsyncClient
from server.client.client import Client
from server.client.errors import (
    BusyError,
    ClientError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    JobFailedError,
    JobTimeoutError,
    NotFoundError,
    RefusedError,
    ServerFailureError,
    TooLateError,
    UnauthenticatedError,
    UnavailableError,
    UnreachableError,
)
from server.client.results import Done, Event, Generation, Image, Preview, Queued, StreamedImage
from server.client.retries import Retries

__all__ = [
    "AsyncClient",
    "BusyError",
    "Client",
    "ClientError",
    "ConflictError",
    "Done",
    "Event",
    "ForbiddenError",
    "Generation",
    "Image",
    "InvalidRequestError",
    "JobFailedError",
    "JobTimeoutError",
    "NotFoundError",
    "Preview",
    "Queued",
    "RefusedError",
    "Retries",
    "ServerFailureError",
    "StreamedImage",
    "TooLateError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnreachableError",
]
