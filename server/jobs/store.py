"""Jobs in SQLite: what exists, what is made, how it ended."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from server.errors import StorageError
from server.jobs.job import Chunk, Job, JobState
from server.jobs.plan import JobPlan

LAYOUT = 1
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    plan TEXT NOT NULL,
    owner TEXT NOT NULL,
    idempotency_key TEXT,
    request_sha256 TEXT NOT NULL,
    created REAL NOT NULL,
    planned_bytes INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    finished REAL,
    result_bytes INTEGER
);
CREATE TABLE chunks (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    start INTEGER NOT NULL,
    count INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (job, start)
) WITHOUT ROWID;
PRAGMA user_version = {LAYOUT};
COMMIT;
"""


class JobStore:
    """A database of jobs, in WAL mode. One thread at a time uses it.

    It stays locked while it is open, so that no second server runs the same jobs; the lock goes with the
    process, however that ends.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Keep the connection of `open`."""
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a database, or make a new one.

        Raises:
            StorageError: it cannot be read or written, belongs to a newer server or is open in another.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(f"the jobs' directory cannot be made: {error.strerror}") from error
        with _explained():
            connection = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
            try:
                for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "foreign_keys = ON"):
                    connection.execute(f"PRAGMA {pragma}")
                layout = connection.execute("PRAGMA user_version").fetchone()[0]
                if layout == 0:
                    connection.executescript(SCHEMA)
                elif layout != LAYOUT:
                    raise StorageError("the jobs' directory was written by a newer server: use that one")
            except BaseException:
                connection.close()
                raise
        return cls(connection)

    def load(self) -> list[Job]:
        """Return every job, oldest first; those that ran are queued again."""
        with _explained():
            rows = self._connection.execute(
                "SELECT id, plan, owner, idempotency_key, request_sha256, created, planned_bytes, state,"
                " reason, finished, result_bytes FROM jobs ORDER BY created, rowid"
            ).fetchall()
            chunks = self._connection.execute("SELECT job, start, count, sha256 FROM chunks").fetchall()
        jobs = {
            row[0]: Job(
                id=row[0],
                plan=JobPlan.model_validate_json(row[1]),
                owner=row[2],
                idempotency_key=row[3],
                request_sha256=row[4],
                created=row[5],
                planned_bytes=row[6],
                state=JobState(row[7]),
                reason=row[8],
                finished=row[9],
                result_bytes=row[10],
            )
            for row in rows
        }
        for job, *chunk in chunks:
            jobs[job].chunks[chunk[0]] = Chunk(*chunk)
        return list(jobs.values())

    def add(self, job: Job) -> None:
        """Keep a new job."""
        with _explained():
            self._connection.execute(
                "INSERT INTO jobs (id, plan, owner, idempotency_key, request_sha256, created, planned_bytes,"
                " state) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job.id,
                    job.plan.model_dump_json(),
                    job.owner,
                    job.idempotency_key,
                    job.request_sha256,
                    job.created,
                    job.planned_bytes,
                    job.state,
                ),
            )

    def set_state(self, job: str, state: JobState, reason: str | None = None) -> None:
        """Keep where a job stands, and why."""
        with _explained():
            self._connection.execute(
                "UPDATE jobs SET state = ?, reason = ? WHERE id = ?", (state, reason, job)
            )

    def finish(self, job: str, *, finished: float, result_bytes: int) -> None:
        """Keep that a job's result is whole; its chunks are not needed any more."""
        with _explained(), self._connection:
            self._connection.execute("BEGIN")
            self._connection.execute(
                "UPDATE jobs SET state = ?, reason = NULL, finished = ?, result_bytes = ? WHERE id = ?",
                (JobState.FINISHED, finished, result_bytes, job),
            )
            self._connection.execute("DELETE FROM chunks WHERE job = ?", (job,))

    def remove(self, job: str) -> None:
        """Forget a job."""
        with _explained():
            self._connection.execute("DELETE FROM jobs WHERE id = ?", (job,))

    def add_chunk(self, job: str, chunk: Chunk) -> None:
        """Keep that a chunk is on the disk."""
        with _explained():
            self._connection.execute(
                "INSERT INTO chunks (job, start, count, sha256) VALUES (?, ?, ?, ?)",
                (job, chunk.start, chunk.count, chunk.sha256),
            )

    def remove_chunk(self, job: str, start: int) -> None:
        """Forget a chunk."""
        with _explained():
            self._connection.execute("DELETE FROM chunks WHERE job = ? AND start = ?", (job, start))

    def close(self) -> None:
        """Close the database and let others have it."""
        self._connection.close()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise StorageError(
                "another server uses this jobs' directory; give this one its own (DDO_JOBS__DIRECTORY)"
            ) from error
        raise StorageError(f"the database of jobs cannot be used: {error}") from error
