"""One job: its plan, how far it is, how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from server.jobs.plan import JobPlan


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A file of finished images: `count` of them from place `start` on, and the SHA-256 of its bytes."""

    start: int
    count: int
    sha256: str


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A job as the server knows it. Only the event loop's thread changes it.

    Attributes:
        id: names it.
        plan: what it makes.
        owner: id of the caller who created it.
        idempotency_key: what its creator called the request; None: nothing.
        request_sha256: tells the request that created it from another with the same key.
        created: seconds since the epoch.
        planned_bytes: most bytes that it takes on the disk.
        state: where it stands.
        reason: why it failed, or what it waits for.
        finished: seconds since the epoch, once it is.
        result_bytes: length of its result, once it is finished.
        chunks: what is made, by first place.
        images_per_second: since it last began to run.
    """

    id: str
    plan: JobPlan
    owner: str
    idempotency_key: str | None
    request_sha256: str
    created: float
    planned_bytes: int
    state: JobState = JobState.QUEUED
    reason: str | None = None
    finished: float | None = None
    result_bytes: int | None = None
    chunks: dict[int, Chunk] = field(default_factory=dict)
    images_per_second: float | None = None

    @property
    def unfinished(self) -> bool:
        """Whether it runs or is going to."""
        return self.state in (JobState.QUEUED, JobState.RUNNING)

    @property
    def done(self) -> int:
        """Images that are made and on the disk."""
        if self.state is JobState.FINISHED:
            return self.plan.n
        return sum(chunk.count for chunk in self.chunks.values())

    @property
    def held_bytes(self) -> int:
        """Bytes of the disk that are, or are to be, its own."""
        return self.planned_bytes if self.result_bytes is None else self.result_bytes

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it is done, as fast as it was; None while nobody can tell."""
        if self.state is not JobState.RUNNING or not self.images_per_second:
            return None
        return (self.plan.n - self.done) / self.images_per_second

    def missing(self) -> Iterator[int]:
        """Yield the places of images that are still to be made, in order."""
        place = 0
        for start in sorted(self.chunks):
            yield from range(place, start)
            place = start + self.chunks[start].count
        yield from range(place, self.plan.n)
