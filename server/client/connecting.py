"""What both clients share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

from server.api.job_schemas import JobInfo
from server.client.calls import Call
from server.client.errors import JobFailedError, JobTimeoutError
from server.jobs.job import JobState

CONNECT_TIMEOUT_S = 10.0


def http_options(url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """Return what httpx's clients are made with."""
    return {
        "base_url": url,
        "headers": {} if api_key is None else {"Authorization": f"Bearer {api_key}"},
        "timeout": httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
    }


def request_options(call: Call[Any]) -> dict[str, Any]:
    """Return what httpx sends for a call."""
    return {"json": call.json, "params": call.params, "headers": call.headers}


class JobWait:
    """Whether waiting for a job is over."""

    def __init__(
        self,
        progress: Callable[[JobInfo], None],
        poll_s: float,
        timeout_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to wait; see `Client.wait`. `clock` gives seconds."""
        self._progress = progress
        self._clock = clock
        self._timeout_s = timeout_s
        self._last = None if timeout_s is None else clock() + timeout_s - poll_s
        self._told: tuple[JobState, int] | None = None

    def over(self, job: JobInfo) -> bool:
        """Tell how far a job is and return whether it is finished.

        Raises:
            JobFailedError: it failed.
            JobTimeoutError: the next look would be too late.
        """
        if (job.state, job.done) != self._told:
            self._told = (job.state, job.done)
            self._progress(job)
        if job.state is JobState.FAILED:
            raise JobFailedError(job)
        if job.state is JobState.FINISHED:
            return True
        if self._last is not None and self._clock() > self._last:
            raise JobTimeoutError(
                f"after {self._timeout_s:g} s {job.done} of {job.total} images of job {job.id} are made"
            )
        return False
