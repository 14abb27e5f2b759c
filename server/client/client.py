"""The client for code without an event loop."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
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


class Client:
    """Asks a server for images. Every method raises `ClientError`, once trying again does not help."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        retries: Retries | None = None,
        timeout_s: float = 300.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Talk to the server at `url`.

        Args:
            url: where it listens.
            api_key: for a server that asks for one.
            retries: when to try again; None: the defaults of `Retries`.
            timeout_s: seconds of silence after which an answer is given up.
            sleep: waits for some seconds.
        """
        self._http = httpx.Client(**http_options(url, api_key, timeout_s))
        self._retries = retries or Retries()
        self._sleep = sleep

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def generate(self, class_: str | int | None = None, /, **options: Unpack[GenerateOptions]) -> Generation:
        """Make images of a class, by name or number; None for a model without classes."""
        return self._send(calls.generate(class_, options))

    def stream(
        self,
        class_: str | int | None = None,
        /,
        *,
        preview: PreviewFields | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Iterator[Event]:
        """Make images and yield what happens: `Queued`, `Preview`, `StreamedImage`, at last `Done`.

        Leaving the loop early and closing the iterator cancels the request.
        """
        with self._opened(calls.stream(class_, preview, options)) as response:
            try:
                for message in EventSource(response).iter_sse():
                    if (event := event_of(message)) is not None:
                        yield event
            except httpx.TransportError as error:
                raise UnreachableError(f"the stream broke off: {error}") from error

    def models(self) -> list[ModelSummary]:
        """Return every served version of every model."""
        return self._send(calls.models())

    def model(self, name: str, version: int | None = None) -> ModelDetail:
        """Return a version of a model, its sampler defaults, licence and lineage."""
        return self._send(calls.model(name, version))

    def classes(self, name: str, version: int | None = None) -> list[str]:
        """Return the names of a model's classes; index = class."""
        return self._send(calls.classes(name, version))

    def create_job(
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
        return self._send(calls.create_job(n, classes, idempotency_key, options))

    def jobs(self) -> list[JobInfo]:
        """Return the caller's jobs, newest first."""
        return self._send(calls.jobs())

    def job(self, job_id: str) -> JobInfo:
        """Return how far a job is."""
        return self._send(calls.job(job_id))

    def resume_job(self, job_id: str) -> JobInfo:
        """Let a job that failed go on."""
        return self._send(calls.resume_job(job_id))

    def delete_job(self, job_id: str) -> None:
        """Cancel a job if it runs, and remove it with all its images."""
        self._send(calls.delete_job(job_id))

    def wait(
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
        while not waiting.over(job := self.job(job_id)):
            self._sleep(poll_s)
        return job

    def download(self, job_id: str, path: Path | str) -> Path:
        """Write a finished job's images to a file; it goes on where a connection broke off."""
        download = Download(Path(path))
        failures = 0
        waited_s = 0.0
        while not download.complete:
            before = download.received
            try:
                with self._opened(calls.result(job_id, download.headers)) as response:
                    download.begin(response)
                    for chunk in response.iter_raw():
                        download.write(chunk)
            except httpx.TransportError as error:
                failures = 1 if download.received > before else failures + 1
                broken = UnreachableError(f"the download broke off: {error}")
                wait_s = self._retries.wait_s(broken, failures, waited_s)
                if wait_s is None:
                    raise broken from error
                self._sleep(wait_s)
                waited_s += wait_s
        return download.finish()

    def _send(self, call: calls.Call[T]) -> T:
        return call.read(self._answered(call, stream=False))

    @contextmanager
    def _opened(self, call: calls.Call[T]) -> Iterator[httpx.Response]:
        """Give the answer to a request, its body unread."""
        response = self._answered(call, stream=True)
        try:
            yield response
        finally:
            response.close()

    def _answered(self, call: calls.Call[T], *, stream: bool) -> httpx.Response:
        """Return the answer to a request, tried again as often as it may be."""
        waited_s = 0.0
        for attempt in itertools.count(1):
            try:
                return self._once(call, stream=stream)
            except ClientError as error:
                wait_s = self._retries.wait_s(error, attempt, waited_s)
                if wait_s is None:
                    raise
            self._sleep(wait_s)
            waited_s += wait_s
        raise AssertionError("counts without end")

    def _once(self, call: calls.Call[T], *, stream: bool) -> httpx.Response:
        request = self._http.build_request(call.method, call.path, **request_options(call))
        try:
            response = self._http.send(request, stream=stream)
            if response.is_success:
                return response
            with closing(response):
                response.read()
        except httpx.TransportError as error:
            raise UnreachableError(f"{self._http.base_url} does not answer: {error}") from error
        raise error_of(response)
