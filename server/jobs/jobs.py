"""All jobs: created, found, run, removed; the same ones after a restart."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import structlog

from server.access.caller import Caller
from server.api.job_schemas import JobRequest
from server.errors import IdempotencyError, JobConflictError, StorageError, UnknownJobError
from server.hosting.catalogue import Catalogue
from server.hosting.lifecycle import Lifecycle
from server.jobs.budget import check_room, planned_bytes
from server.jobs.folder import JobFolder, all_folders
from server.jobs.job import Job, JobState
from server.jobs.planning import make_plan
from server.jobs.queue import JobQueue
from server.jobs.rows import JobRows
from server.jobs.runner import JobRunner
from server.jobs.store import JobStore
from server.jobs.store_thread import StoreThread
from server.jobs.threads import finish_on
from server.metrics import Metrics
from server.scheduling.worker import Worker
from server.settings import Settings

DATABASE = "jobs.sqlite3"

log = structlog.get_logger(__name__)


class Jobs:
    """Keeps jobs and has them run. Nothing is on the disk before the first one.

    All methods belong to the event loop's thread.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        catalogue: Catalogue,
        lifecycle: Lifecycle,
        worker: Worker,
        metrics: Metrics,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Use the app's parts; `now` gives seconds since the epoch."""
        self._settings = settings
        self._catalogue = catalogue
        self._lifecycle = lifecycle
        self._now = now
        self._directory = settings.jobs.directory
        self._store = StoreThread(self._directory / DATABASE)
        self._file_threads = ThreadPoolExecutor(settings.jobs.parallel, thread_name_prefix="jobs-files")
        runner = JobRunner(
            self._store,
            JobRows(catalogue, lifecycle, worker),
            directory=self._directory,
            file_threads=self._file_threads,
            metrics=metrics,
            now=now,
        )
        self._queue = JobQueue(runner, self._store, parallel=settings.jobs.parallel)
        self._jobs: dict[str, Job] = {}
        self._changes = asyncio.Lock()
        metrics.add_jobs({state: partial(self._count, state) for state in JobState})

    async def start(self) -> None:
        """Go on with the jobs of an earlier server, if there are any."""
        if (self._directory / DATABASE).exists():
            try:
                await self._open()
            except StorageError as error:
                log.error("jobs are not available", reason=str(error), directory=str(self._directory))

    async def stop(self) -> None:
        """Pause all jobs; what is made is kept."""
        await self._queue.stop()
        await self._store.close()
        self._file_threads.shutdown()

    async def create(
        self, wanted: JobRequest, *, caller: Caller, idempotency_key: str | None
    ) -> tuple[Job, bool]:
        """Create a job, and return it and True; or the one that its key made before, and False.

        Raises:
            ServeError: refused.
        """
        digest = hashlib.sha256(wanted.model_dump_json().encode()).hexdigest()
        if (known := self._repeated(caller.id, idempotency_key, digest)) is not None:
            return known, False
        model = self._catalogue.find(wanted.model, wanted.version)
        engine = await self._lifecycle.engine(model, self._settings.deadline_ms / 1000)
        plan = make_plan(wanted, model, engine, self._settings)
        planned = planned_bytes(plan.n, model.image_shape)
        async with self._changes:
            if (known := self._repeated(caller.id, idempotency_key, digest)) is not None:
                return known, False
            check_room(planned, self._jobs.values(), self._settings.jobs)
            await self._open()
            job = Job(
                id=secrets.token_hex(8),
                plan=plan,
                owner=caller.id,
                idempotency_key=idempotency_key,
                request_sha256=digest,
                created=self._now(),
                planned_bytes=planned,
            )
            await self._store.call(lambda store: store.add(job))
            self._jobs[job.id] = job
            self._queue.put(job)
        log.info("job created", job=job.id, model=plan.model, version=plan.version, images=plan.n)
        return job, True

    def seen_by(self, caller: Caller) -> list[Job]:
        """Return a caller's own jobs, or an admin all of them, newest first."""
        return [job for job in reversed(self._jobs.values()) if _may_see(caller, job)]

    def find(self, job_id: str, caller: Caller) -> Job:
        """Return a job that the caller may see; raises UnknownJobError."""
        job = self._jobs.get(job_id)
        if job is None or not _may_see(caller, job):
            raise UnknownJobError(f"there is no job {job_id!r}; GET /jobs lists them")
        return job

    def result(self, job: Job) -> Path:
        """Return the file with a job's images.

        Raises:
            JobConflictError: it is not finished.
            StorageError: somebody removed the file.
        """
        if job.state is JobState.FAILED:
            raise JobConflictError(
                f"the job failed: {job.reason}; mend that, then POST /jobs/{job.id}/resume goes on with it"
            )
        if job.state is not JobState.FINISHED:
            raise JobConflictError(
                f"{job.done} of {job.plan.n} images are made; come back once it is finished"
            )
        path = JobFolder.of(self._directory, job).result(job.plan.format)
        if not path.exists():
            raise StorageError("the result is gone from the disk; DELETE the job and create it again")
        return path

    async def resume(self, job: Job) -> None:
        """Go on with a job that failed.

        Raises:
            JobConflictError: it did not fail.
            StorageError: the database cannot be written.
        """
        async with self._changes:
            if job.state is not JobState.FAILED:
                raise JobConflictError(f"the job is {job.state}; only one that failed is resumed")
            await self._store.call(lambda store: store.set_state(job.id, JobState.QUEUED))
            job.state, job.reason = JobState.QUEUED, None
            self._queue.put(job)

    async def remove(self, job: Job) -> None:
        """Cancel a job if it runs; forget it and its images.

        Raises:
            StorageError: the database cannot be written.
        """
        async with self._changes:
            await self._queue.take(job)
            await self._store.call(lambda store: store.remove(job.id))
            self._jobs.pop(job.id, None)
            await finish_on(self._file_threads, JobFolder.of(self._directory, job).remove)
        log.info("job removed", job=job.id)

    def _count(self, state: JobState) -> int:
        return sum(job.state is state for job in list(self._jobs.values()))

    def _repeated(self, owner: str, key: str | None, digest: str) -> Job | None:
        for job in self._jobs.values():
            if key is not None and (job.owner, job.idempotency_key) == (owner, key):
                if job.request_sha256 != digest:
                    raise IdempotencyError(f"the Idempotency-Key belongs to job {job.id}, another request")
                return job
        return None

    async def _open(self) -> None:
        """Open the database and put what it holds into the queue, once."""
        if self._store.is_open:
            return
        for job in await self._store.call(JobStore.load):
            self._jobs[job.id] = job
            if job.unfinished:
                self._queue.put(job)
        await finish_on(self._file_threads, self._sweep)

    def _sweep(self) -> None:
        """Remove what a killed server left behind."""
        for path in all_folders(self._directory):
            job = self._jobs.get(path.name)
            if job is None:
                JobFolder(path).remove()
            elif job.state is JobState.FINISHED:
                JobFolder(path).remove_chunks()


def _may_see(caller: Caller, job: Job) -> bool:
    return caller.admin or caller.id == job.owner
