"""The client for code in an event loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar, Unpack

import httpx
from httpx_sse import EventSource

from server.api.job_schemas import JobInfo
from server.api.schemas import ModelDetail, ModelSummary
from server.client import calls
from server.client.connecting import JobWait, http_options, request_options
from server.client.download import Download
from server.client.errors import ClientError, UnreachableError, error_of
from server.client.options import GenerateOptions, JobOptions, PreviewFields
from server.client.results import Event, Generation, event_of
from server.client.retries import Retries

T = TypeVar("T")


class AsyncClient:
    """Does what `Client` does, method by method, without holding up the event loop."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        retries: Retries | None = None,
        timeout_s: float = 300.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Talk to the server at `url`.

        Args:
            url: where it listens.
            api_key: for a server that asks for one.
            retries: when to try again; None: the defaults of `Retries`.
            timeout_s: seconds of silence after which an answer is given up.
            sleep: waits for some seconds.
        """
        self._http = httpx.AsyncClient(**http_options(url, api_key, timeout_s))
        self._retries = retries or Retries()
        self._sleep = sleep

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def generate(
        self, class_: str | int | None = None, /, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """Make images of a class, by name or number; None for a model without classes."""
        return await self._send(calls.generate(class_, options))

    async def stream(
        self,
        class_: str | int | None = None,
        /,
        *,
        preview: PreviewFields | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncIterator[Event]:
        """Make images and yield what happens: see `Client.stream`.

        Leaving the loop early and closing the iterator cancels the request.
        """
        async with self._opened(calls.stream(class_, preview, options)) as response:
            try:
                async for message in EventSource(response).aiter_sse():
                    if (event := event_of(message)) is not None:
                        yield event
            except httpx.TransportError as error:
                raise UnreachableError(f"the stream broke off: {error}") from error

    async def models(self) -> list[ModelSummary]:
        """Return every served version of every model."""
        return await self._send(calls.models())

    async def model(self, name: str, version: int | None = None) -> ModelDetail:
        """Return a version of a model, its sampler defaults, licence and lineage."""
        return await self._send(calls.model(name, version))

    async def classes(self, name: str, version: int | None = None) -> list[str]:
        """Return the names of a model's classes; index = class."""
        return await self._send(calls.classes(name, version))

    async def create_job(
        self,
        n: int,
        classes: str | int | Sequence[str | int] = "all",
        *,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> JobInfo:
        """Create a job of `n` images, of all classes in turn or of these.

        Args:
            n: how many images.
            classes: one by name or number, several, or `all`.
            idempotency_key: any text of yours; a job created with it before is returned. None draws one.
            options: as for `generate`; `format` is that of the result.
        """
        return await self._send(calls.create_job(n, classes, idempotency_key, options))

    async def jobs(self) -> list[JobInfo]:
        """Return the caller's jobs, newest first."""
        return await self._send(calls.jobs())

    async def job(self, job_id: str) -> JobInfo:
        """Return how far a job is."""
        return await self._send(calls.job(job_id))

    async def resume_job(self, job_id: str) -> JobInfo:
        """Let a job that failed go on."""
        return await self._send(calls.resume_job(job_id))

    async def delete_job(self, job_id: str) -> None:
        """Cancel a job if it runs, and remove it with all its images."""
        await self._send(calls.delete_job(job_id))

    async def wait(
        self,
        job_id: str,
        *,
        progress: Callable[[JobInfo], None] = lambda _: None,
        poll_s: float = 1.0,
        timeout_s: float | None = None,
    ) -> JobInfo:
        """Wait until a job is finished.

        Args:
            job_id: of the job.
            progress: is told how far it is, every time that this changed.
            poll_s: seconds between two looks at it.
            timeout_s: seconds after which waiting ends; None: none.

        Raises:
            JobFailedError: it failed.
            JobTimeoutError: it is not finished yet.
        """
        waiting = JobWait(progress, poll_s, timeout_s)
        while not waiting.over(job := await self.job(job_id)):
            await self._sleep(poll_s)
        return job

    async def download(self, job_id: str, path: Path | str) -> Path:
        """Write a finished job's images to a file; it goes on where a connection broke off."""
        download = Download(Path(path))
        failures = 0
        waited_s = 0.0
        while not download.complete:
            before = download.received
            try:
                async with self._opened(calls.result(job_id, download.headers)) as response:
                    download.begin(response)
                    async for chunk in response.aiter_raw():
                        await asyncio.to_thread(download.write, chunk)
            except httpx.TransportError as error:
                failures = 1 if download.received > before else failures + 1
                broken = UnreachableError(f"the download broke off: {error}")
                wait_s = self._retries.wait_s(broken, failures, waited_s)
                if wait_s is None:
                    raise broken from error
                await self._sleep(wait_s)
                waited_s += wait_s
        return download.finish()

    async def _send(self, call: calls.Call[T]) -> T:
        return call.read(await self._answered(call, stream=False))

    @asynccontextmanager
    async def _opened(self, call: calls.Call[T]) -> AsyncIterator[httpx.Response]:
        """Give the answer to a request, its body unread."""
        response = await self._answered(call, stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def _answered(self, call: calls.Call[T], *, stream: bool) -> httpx.Response:
        """Return the answer to a request, tried again as often as it may be."""
        waited_s = 0.0
        for attempt in itertools.count(1):
            try:
                return await self._once(call, stream=stream)
            except ClientError as error:
                wait_s = self._retries.wait_s(error, attempt, waited_s)
                if wait_s is None:
                    raise
            await self._sleep(wait_s)
            waited_s += wait_s
        raise AssertionError("counts without end")

    async def _once(self, call: calls.Call[T], *, stream: bool) -> httpx.Response:
        request = self._http.build_request(call.method, call.path, **request_options(call))
        try:
            response = await self._http.send(request, stream=stream)
            if response.is_success:
                return response
            async with aclosing(response):
                await response.aread()
        except httpx.TransportError as error:
            raise UnreachableError(f"{self._http.base_url} does not answer: {error}") from error
        raise error_of(response)
