"""The ingress: hands requests to replicas, and to others where one refuses or dies."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from ray.exceptions import RayError, RayTaskError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from server.api.problems import problem_response
from server.errors import BodyTooLargeError, NoReplicaError, NotInClusterError, ServeError
from server.ray.call import Call
from server.ray.replay import Replay
from server.request_id import REQUEST_ID, draw_request_id
from server.sampling import DRAWN_SEEDS
from server.settings import Settings

RETRIED = frozenset({"queue-full", "too-late", "not-ready", "draining", "unknown-request"})
"""Refusals that another replica may not share. Limits of a caller are not among them."""

SINGLE = ("/jobs", "/admin", "/metrics")
"""What is one server's own: kept on its disk, or told of it alone."""

RETRY_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Answer:
    """What a replica has begun to answer; `rest` are the chunks of its body."""

    replica: str
    status: int
    headers: Sequence[tuple[bytes, bytes]]
    rest: DeploymentResponseGenerator[Any]

    @property
    def streams(self) -> bool:
        """Whether it is sent as it comes."""
        return any(
            name == b"content-type" and value.startswith(b"text/event-stream") for name, value in self.headers
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        async for message in self.rest:
            if message.get("body"):
                yield message["body"]


class Router:
    """Ray's ingress deployment.

    Args:
        replicas: a handle to the deployment of `Replica`.
        settings: of every replica.
        attempts: replicas that are asked before a refusal, or a loss, reaches the client.
    """

    def __init__(self, replicas: DeploymentHandle[Any], settings: Settings, attempts: int) -> None:
        self._replicas = replicas.options(method_name="answer", stream=True)
        self._settings = settings
        self._attempts = attempts

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request."""
        request_id = request.headers.get("x-request-id") or draw_request_id()
        REQUEST_ID.set(request_id)  # A request is a task of its own, and so is what it sets.
        try:
            return await self._answer(await self._read(request, request_id))
        except ServeError as error:
            return problem_response(error, request)

    async def _read(self, request: Request, request_id: str) -> Call:
        """Read a request whole.

        A seed is drawn for one that has none, so that a second replica makes the same images as the first.
        """
        path = request.url.path
        if path.startswith(SINGLE):
            raise NotInClusterError(f"{path.split('/')[1]} belongs to one server: ask one that runs alone")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._settings.body_bytes:
                raise BodyTooLargeError(f"the body has more than {self._settings.body_bytes} bytes")
        wanted = _json_object(bytes(body))
        if path == "/generate" and wanted is not None and wanted.get("seed") is None:
            seed = secrets.randbelow(DRAWN_SEEDS - self._settings.max_images)
            body = bytearray(json.dumps({**wanted, "seed": seed}).encode())
        images = (wanted or {}).get("n")
        replaced = (b"content-length", b"x-request-id")
        headers = [(name, value) for name, value in request.scope["headers"] if name not in replaced]
        headers += [(b"content-length", str(len(body)).encode()), (b"x-request-id", request_id.encode())]
        return Call.of(
            {**request.scope, "headers": headers}, bytes(body), images if isinstance(images, int) else 1
        )

    async def _answer(self, call: Call) -> Response:
        """Ask replicas until one neither refuses nor dies.

        Raises:
            NoReplicaError: there was none.
        """
        refusal: Response | None = None
        for _ in range(self._attempts):
            try:
                answer = await self._ask(call)
                if answer.streams:
                    return _response(answer, StreamingResponse(self._events(call, answer)))
                body = await _whole(answer)
            except RayError as error:
                _check_lost(error)
                continue
            response = _response(answer, Response(body))
            if _name(answer.status, body) not in RETRIED:
                return response
            refusal, call = response, call.without(answer.replica)
        if refusal is None:
            raise _no_replica()
        return refusal

    async def _ask(self, call: Call) -> Answer:
        rest = self._replicas.remote(call)
        replica = await anext(rest)
        start = await anext(rest)
        return Answer(replica, start["status"], start["headers"], rest)

    async def _events(self, call: Call, answer: Answer) -> AsyncIterator[bytes]:
        """Yield a stream's events; those of the next replica where one dies."""
        replay, begun = Replay(), [answer]
        for _ in range(self._attempts):
            try:
                answer = begun.pop() if begun else await self._ask(call)
                async for chunk in answer.chunks():
                    if answer.status != 200:
                        yield _error_event(chunk)
                    elif replay.news(chunk):
                        yield chunk
                return
            except RayError as error:
                _check_lost(error)
            finally:
                answer.rest.cancel()
        lost = problem_response(_no_replica(), Request(call.scope))
        yield _error_event(bytes(lost.body))


async def _whole(answer: Answer) -> bytes:
    """Return the whole body; if the client leaves meanwhile, so does the router."""
    try:
        return b"".join([chunk async for chunk in answer.chunks()])
    finally:
        answer.rest.cancel()


def _no_replica() -> NoReplicaError:
    return NoReplicaError("every replica that was asked was lost", RETRY_S)


def _error_event(problem: bytes) -> bytes:
    return b"event: error\ndata: " + problem + b"\n\n"


def _response(answer: Answer, response: Response) -> Response:
    """Give a response a replica's status and headers."""
    response.status_code = answer.status
    response.raw_headers = list(answer.headers)
    return response


def _name(status: int, body: bytes) -> str:
    """Return the kind of problem that an answer tells, in whichever shape; nothing of a good one."""
    if status < 400:
        return ""
    problem = _json_object(body) or {}
    error = problem.get("error")
    name = error.get("code") if isinstance(error, dict) else problem.get("type")
    return str(name).removeprefix("urn:ddo-serve:").replace("_", "-")


def _json_object(body: bytes) -> dict[str, Any] | None:
    """Return an object; None of anything else, of which the replica says what is wrong."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _check_lost(error: RayError) -> None:
    """Pass on what is not the loss of a replica."""
    if isinstance(error, RayTaskError):
        raise error
    log.warning("a replica was lost; another one is asked", reason=type(error).__name__)
