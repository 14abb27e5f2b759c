"""Whether a job's images will fit on the disk, asked before the first one is made."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from pathlib import Path

from server.errors import StorageError
from server.jobs.job import Job
from server.jobs.settings import JobSettings

# Beside pixels: names, labels and seeds of an image, and the database.
BYTES_AN_IMAGE = 1024
BYTES_A_JOB = 1 << 20


def planned_bytes(images: int, shape: Iterable[int]) -> int:
    """Return the most bytes that a job of images of this shape, uint8, takes.

    Its chunks are removed once its result is whole, so for a while there are two of each image. A PNG of
    noise is hardly longer than its pixels.
    """
    return 2 * images * (math.prod(shape) + BYTES_AN_IMAGE) + BYTES_A_JOB


def check_room(wanted: int, jobs: Iterable[Job], settings: JobSettings) -> None:
    """Refuse a job that would not fit.

    Args:
        wanted: bytes that it takes at most.
        jobs: all jobs there are; those that are not finished are still going to take what they planned.
        settings: the bounds, and where the disk is.

    Raises:
        StorageError: too many bytes, too many jobs, or too full a disk.
    """
    kept = list(jobs)
    if len(kept) >= settings.max_jobs:
        raise StorageError(f"{len(kept)} jobs are kept already, as many as may be; DELETE one of them")
    held = sum(job.held_bytes for job in kept)
    if held + wanted > settings.disk_bytes:
        raise StorageError(
            f"this job may need {_size(wanted)}, and other jobs hold {_size(held)} of the "
            f"{_size(settings.disk_bytes)} that jobs may take; DELETE jobs or ask for fewer images"
        )
    promised = sum(_still_to_come(job) for job in kept)
    free = shutil.disk_usage(_existing(settings.directory)).free
    if wanted + promised > free:
        raise StorageError(
            f"this job may need {_size(wanted)}, and other jobs {_size(promised)} more; the disk has "
            f"{_size(free)} left; DELETE jobs or ask for fewer images"
        )


def _still_to_come(job: Job) -> int:
    if job.result_bytes is not None:
        return 0
    return job.planned_bytes - job.planned_bytes // 2 * job.done // job.plan.n


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _size(count: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count} {unit}"
        count = math.ceil(count / 1024)
    return f"{count} TiB"
