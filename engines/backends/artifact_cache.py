"""Files that are costly to make and cheap to make again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import structlog

T = TypeVar("T")

DEFAULT_BYTES = 8 << 30
"""Compiled networks of about 20 versions of the size of EDM's."""

log = structlog.get_logger(__name__)


def default_folder() -> Path:
    """Return the user's cache folder for this project (XDG Base Directory Specification 0.8)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ddo-serve"


class ArtifactCache:
    """A folder of artifacts, each found by everything that it depends on.

    An artifact is KEY.bin, KEY the SHA-256 of what it depends on, with KEY.json beside it: what that is, its
    size and its SHA-256. Both appear by a rename. An artifact that is damaged, truncated or unreadable is
    made again, and a folder that cannot be written makes nothing fail. Beyond `most_bytes` those go that were
    not used for longest.

    Args:
        folder: need not exist.
        most_bytes: of all artifacts together.
    """

    def __init__(self, folder: Path, most_bytes: int = DEFAULT_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def get(
        self,
        sources: Mapping[str, str | int],
        *,
        read: Callable[[bytes], T],
        make: Callable[[], T],
        write: Callable[[T], bytes],
    ) -> T:
        """Return the artifact of `sources`, from its file where that is whole.

        Args:
            sources: everything that the artifact depends on.
            read: from a file's content to the artifact.
            make: the artifact anew.
            write: the inverse of `read`.
        """
        path = self._path(sources)
        if path.exists():
            try:
                artifact = read(self._checked(path))
            except Exception as error:  # whatever a damaged file leads to, making it again is the answer
                log.warning("cached file made again", file=str(path), reason=str(error))
            else:
                with contextlib.suppress(OSError):
                    os.utime(path)
                return artifact
        artifact = make()
        try:
            self._put(path, sources, write(artifact))
            self._prune(keep=path)
        except OSError as error:
            log.warning("cache cannot be written", folder=str(self._folder), reason=str(error))
        return artifact

    def _path(self, sources: Mapping[str, str | int]) -> Path:
        key = hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{key}.bin"

    @staticmethod
    def _checked(path: Path) -> bytes:
        recorded = json.loads(path.with_suffix(".json").read_bytes())
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != recorded["sha256"]:
            raise ValueError("its SHA-256 is not the recorded one")
        return content

    def _put(self, path: Path, sources: Mapping[str, str | int], content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(content).hexdigest()
        record = {"sources": dict(sources), "size": len(content), "sha256": digest}
        _replace(path, content)
        _replace(path.with_suffix(".json"), json.dumps(record, indent=2).encode())

    def _prune(self, keep: Path) -> None:
        files = sorted(self._folder.glob("*.bin"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > self._most_bytes and path != keep:
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
        try:
            file.write(content)
            file.close()
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
