"""Downloads of catalogue entries, pinned to a commit where one is known, else to the first bytes had."""

from __future__ import annotations

import http
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import hf_hub_download
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from models.catalogue import CatalogueEntry, HubFile, RemoteFile, UrlFile
from models.convert import load_networks, provenance, publish
from models.errors import DownloadError
from models.frozen import FrozenModel
from models.registry import Registry
from models.version import ModelVersion, record

_CHUNK = 1 << 20
_TIMEOUT = 30.0
_PINS_FILE = "pins.json"


class Pin(FrozenModel):
    """What a file was when it was first downloaded."""

    sha256: str
    revision: str | None = None


class Pins:
    """`pins.json` of a registry: each downloaded file's SHA-256, and its commit where it has one."""

    def __init__(self, root: Path) -> None:
        self._path = root / _PINS_FILE

    def get(self, remote: RemoteFile) -> Pin | None:
        """Return what `remote` was at its first download."""
        return self._read().get(remote.location)

    def check(self, remote: RemoteFile, pin: Pin) -> None:
        """Remember a first download; refuse a later one with other bytes.

        Raises:
            DownloadError: the file is another one than at its first download.
        """
        known = self._read()
        before = known.get(remote.location)
        if before is None:
            self._write({**known, remote.location: pin})
        elif before.sha256 != pin.sha256:
            raise DownloadError(
                f"{remote.location} changed: SHA-256 {pin.sha256}, at its first download {before.sha256}; "
                f"to accept the change, remove it from {self._path}"
            )

    def _read(self) -> dict[str, Pin]:
        if not self._path.is_file():
            return {}
        try:
            return TypeAdapter(dict[str, Pin]).validate_json(self._path.read_bytes())
        except ValidationError as error:
            raise DownloadError(f"{self._path} is damaged") from error

    def _write(self, pins: Mapping[str, Pin]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f"{_PINS_FILE}.{uuid.uuid4().hex}")
        partial.write_bytes(TypeAdapter(dict[str, Pin]).dump_json(dict(pins), indent=2))
        partial.replace(self._path)


def pull(entry: CatalogueEntry, registry: Registry, downloads: Path, console: Console) -> ModelVersion:
    """Download a catalogue entry's files, convert them and make the result current.

    Interrupted downloads are resumed. If the current version was made from the same bytes, it is returned.

    Args:
        entry: what to download.
        registry: where to publish; it also keeps the pins.
        downloads: folder for files from plain web servers; the Hub's go to its own cache.
        console: shows progress.

    Raises:
        DownloadError: a file cannot be had, or is not the one that was pinned; says how to place it by hand.
        CheckpointError: a file is no such checkpoint.
    """
    pins = Pins(registry.root)
    files = {name: _download(remote, pins, downloads, console, entry) for name, remote in entry.files.items()}
    source = provenance((entry.files[name].location, path) for name, path in files.items())
    if registry.current(entry.name) is not None:
        current = registry.open(entry.name)
        if current.spec.lineage.source == source:
            return current
    return publish(entry.spec(), load_networks(files), registry, source=source)


def fetch(url: str, destination: Path, console: Console) -> None:
    """Download over HTTP into `destination`, resuming from `destination`.part.

    Raises:
        OSError: the server cannot be reached, refuses, or sends less than it announced.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = destination.with_name(destination.name + ".part")
    offset = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()  # The part is not the beginning of this file.
        return fetch(url, destination, console)
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            offset = 0
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length else None
        with part.open("ab" if offset else "wb") as file, _progress(console) as progress:
            task = progress.add_task(destination.name, total=total, completed=offset)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and part.stat().st_size != total:
        raise OSError(
            f"the connection ended after {part.stat().st_size:,} of {total:,} bytes; try again to resume"
        )
    part.replace(destination)


def _download(
    remote: RemoteFile, pins: Pins, downloads: Path, console: Console, entry: CatalogueEntry
) -> Path:
    pin = pins.get(remote)
    try:
        if isinstance(remote, HubFile):
            path, revision = _from_hub(remote, pin)
        else:
            path, revision = _from_url(remote, downloads, console), None
    except Exception as error:  # The Hub's client lets through the errors of its HTTP library.
        raise DownloadError(
            f"could not download {remote.file}: tried {remote.url} ({_first_line(error)}). {_by_hand(entry)}"
        ) from error
    pins.check(remote, Pin(sha256=record(path).sha256, revision=revision))
    return path


def _from_hub(remote: HubFile, pin: Pin | None) -> tuple[Path, str]:
    revision = remote.revision or (pin.revision if pin else None)
    path = Path(hf_hub_download(remote.repository, remote.file, revision=revision))
    return path, path.parent.name  # The cache keeps a file under its commit: snapshots/COMMIT/FILE.


def _from_url(remote: UrlFile, downloads: Path, console: Console) -> Path:
    destination = downloads / remote.file
    if not destination.is_file():
        fetch(remote.url, destination, console)
    return destination


def _progress(console: Console) -> Progress:
    speed = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), BarColumn(), *speed, console=console)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _by_hand(entry: CatalogueEntry) -> str:
    urls = ", ".join(remote.url for remote in entry.files.values())
    command = f"python -m models convert FOLDER/{entry.files['main'].file} --as {entry.name}"
    return f"By hand: download {urls} into one folder, then run {command}"
