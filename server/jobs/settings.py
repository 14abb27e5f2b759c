"""Where jobs lie and how much they may take."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from models.frozen import FrozenModel


def default_folder() -> Path:
    """Return the user's state folder for this project (XDG Base Directory Specification 0.8)."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "ddo-serve"


class JobSettings(FrozenModel):
    """The bounds of jobs.

    Attributes:
        directory: holds jobs and their images; made for the first job, used by one server at a time.
        max_images: images that one job may make.
        max_jobs: jobs that are kept at once, finished ones too.
        parallel: jobs that run at once; the others wait in order of arrival.
        disk_bytes: bytes that all jobs together may take on the disk.
    """

    directory: Path = Field(default_factory=default_folder)
    max_images: int = Field(default=50_000, ge=1)
    max_jobs: int = Field(default=100, ge=1)
    parallel: int = Field(default=2, ge=1)
    disk_bytes: int = Field(default=128 << 30, ge=1)
