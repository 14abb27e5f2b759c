"""One job, from what is missing to its result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from functools import partial
from pathlib import Path

import structlog

from server.errors import StorageError
from server.jobs.chunk_writer import ChunkWriter
from server.jobs.folder import DamagedChunkError, JobFolder, replacing
from server.jobs.job import Chunk, Job, JobState
from server.jobs.results import PACKINGS
from server.jobs.rows import JobRows
from server.jobs.store import JobStore
from server.jobs.store_thread import StoreThread
from server.jobs.threads import finish_on
from server.metrics import Metrics
from server.scheduling.ticket import Image

# A disk that damages the same images again and again does not get better.
TRIES = 3

log = structlog.get_logger(__name__)


class JobRunner:
    """Runs jobs: makes what is missing, keeps it, puts the result together."""

    def __init__(
        self,
        store: StoreThread,
        rows: JobRows,
        *,
        directory: Path,
        file_threads: Executor,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Keep jobs' files under `directory`; `clock` gives seconds, `now` those since the epoch."""
        self._store = store
        self._rows = rows
        self._directory = directory
        self._file_threads = file_threads
        self._metrics = metrics
        self._clock = clock
        self._now = now

    async def run(self, job: Job) -> None:
        """Finish a job. Cancelled, it keeps what is made.

        Raises:
            ServeError: it cannot go on, now or at all; what is made is kept.
        """
        job.state, job.reason = JobState.RUNNING, None
        for _ in range(TRIES):
            await self._make(job)
            try:
                result_bytes = await self._assemble(job)
            except DamagedChunkError:
                await self._forget_damaged(job)
            else:
                await self._finish(job, result_bytes)
                return
        raise StorageError("the disk damages what is written on it")

    async def _make(self, job: Job) -> None:
        before, started = job.done, self._clock()

        async def write(start: int, images: Sequence[Image]) -> None:
            chunk = await finish_on(self._file_threads, lambda: self._write(job, start, images))
            await self._store.call(lambda store: store.add_chunk(job.id, chunk))
            job.chunks[start] = chunk
            job.images_per_second = (job.done - before) / max(self._clock() - started, 1e-9)
            self._metrics.job_images.labels(job.plan.model, job.plan.version).inc(len(images))

        writer = ChunkWriter(write, clock=self._clock)
        try:
            async with aclosing(self._rows.images(job.plan, job.missing())) as images:
                async for place, image in images:
                    await writer.add(place, image)
        finally:
            await writer.flush()

    def _write(self, job: Job, start: int, images: Sequence[Image]) -> Chunk:
        content = PACKINGS[job.plan.format].pack(job.plan, start, images)
        return JobFolder.of(self._directory, job).write_chunk(start, content, len(images))

    async def _assemble(self, job: Job) -> int:
        """Put the result together; return its length in bytes."""
        abandoned = threading.Event()
        chunks = [job.chunks[start] for start in sorted(job.chunks)]
        return await finish_on(
            self._file_threads, lambda: self._write_result(job, chunks, abandoned), hurry=abandoned.set
        )

    def _write_result(self, job: Job, chunks: Sequence[Chunk], abandoned: threading.Event) -> int:
        folder = JobFolder.of(self._directory, job)

        def contents() -> Iterator[bytes]:
            for chunk in chunks:
                if abandoned.is_set():
                    raise StorageError("the result was abandoned")
                yield folder.read_chunk(chunk)

        path = folder.result(job.plan.format)
        with replacing(path) as file:
            PACKINGS[job.plan.format].assemble(job.plan, contents(), file)
        return path.stat().st_size

    async def _forget_damaged(self, job: Job) -> None:
        folder, chunks = JobFolder.of(self._directory, job), list(job.chunks.values())
        damaged = await finish_on(
            self._file_threads, lambda: [chunk for chunk in chunks if not folder.holds(chunk)]
        )
        for chunk in damaged:
            log.warning("images of a job are damaged", job=job.id, start=chunk.start, images=chunk.count)
            await self._store.call(partial(JobStore.remove_chunk, job=job.id, start=chunk.start))
            del job.chunks[chunk.start]

    async def _finish(self, job: Job, result_bytes: int) -> None:
        finished = self._now()
        await self._store.call(
            lambda store: store.finish(job.id, finished=finished, result_bytes=result_bytes)
        )
        job.state, job.reason = JobState.FINISHED, None
        job.finished, job.result_bytes = finished, result_bytes
        job.chunks = {}
        await finish_on(self._file_threads, JobFolder.of(self._directory, job).remove_chunks)
