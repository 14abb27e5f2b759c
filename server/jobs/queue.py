"""Jobs that wait for their turn, and those whose turn it is."""

from __future__ import annotations

import asyncio

import structlog

from server.errors import DrainingError, NotReadyError, ServeError, StorageError
from server.jobs.job import Job, JobState
from server.jobs.runner import JobRunner
from server.jobs.store_thread import StoreThread

READY_POLL_S = 0.5

log = structlog.get_logger(__name__)


class JobQueue:
    """Runs jobs, some at once, the others in order of arrival."""

    def __init__(self, runner: JobRunner, store: StoreThread, *, parallel: int) -> None:
        """Run at most `parallel` jobs at once."""
        self._runner = runner
        self._store = store
        self._turns = asyncio.Semaphore(parallel)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def put(self, job: Job) -> None:
        """Run a job as soon as its turn comes, again and again until its model is ready."""
        task = asyncio.create_task(self._work(job))
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.id, None))

    async def take(self, job: Job) -> None:
        """Pause a job, if it runs or waits; what is made is kept."""
        if (task := self._tasks.get(job.id)) is not None:
            task.cancel()
            await asyncio.wait([task])

    async def stop(self) -> None:
        """Pause all jobs."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, job: Job) -> None:
        try:
            while job.unfinished:
                await self._attempt(job)
        except DrainingError as error:
            job.state, job.reason = JobState.QUEUED, str(error)
            log.info("job paused", job=job.id, done=job.done)
        except ServeError as error:
            await self._fail(job, str(error))
        except Exception:
            log.exception("unexpected error in a job", job=job.id)
            await self._fail(job, "an unexpected error; the server's log has it")
        else:
            log.info("job finished", job=job.id)

    async def _attempt(self, job: Job) -> None:
        try:
            async with self._turns:
                await self._runner.run(job)
        except NotReadyError as error:
            job.state, job.reason = JobState.QUEUED, str(error)
            await asyncio.sleep(READY_POLL_S)

    async def _fail(self, job: Job, reason: str) -> None:
        job.state, job.reason = JobState.FAILED, reason
        log.error("job failed", job=job.id, done=job.done, reason=reason)
        try:
            await self._store.call(lambda store: store.set_state(job.id, JobState.FAILED, reason))
        except StorageError as error:
            log.error("that a job failed is not written down", job=job.id, reason=str(error))
