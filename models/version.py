"""One version of a model: a directory with `model.json` and the files that it names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from models.errors import CheckpointError, ModelNotFoundError, UnsafeCheckpointError
from models.spec import MODEL_FILE, FileRecord, ModelSpec

if TYPE_CHECKING:
    from torch import nn

_MAX_SPEC_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """An immutable version of a model.

    Attributes:
        directory: where `model.json` lies.
        spec: its content.
        number: the version's number in its registry; None for a directory outside one.
    """

    directory: Path
    spec: ModelSpec
    number: int | None = None

    def path(self, file: str) -> Path:
        """Return the place of one of the version's files.

        Raises:
            UnsafeCheckpointError: it lies outside the version's directory, as written or behind a link.
            CheckpointError: `model.json` does not record it, or it is not there.
        """
        path = self.directory / file
        if not path.resolve().is_relative_to(self.directory.resolve()):
            raise UnsafeCheckpointError(
                f"{self.directory / MODEL_FILE} names {file!r}, outside its directory"
            )
        if file not in self.spec.files:
            raise CheckpointError(f"{self.directory / MODEL_FILE} records no checksum of {file!r}")
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        return path

    def network(self, name: str = "main", *, allow_non_finite: bool = False) -> nn.Module:
        """Build a network and load its weights, checksum first. Float16 weights are loaded as float32.

        Args:
            name: `main`, `guide` or `vqvae`.
            allow_non_finite: load NaN or infinite weights with a warning.

        Raises:
            ModelNotFoundError: the model has no such network.
            CheckpointError: the file is not the recorded one, or does not fit the network.
        """
        if name not in self.spec.networks:
            raise ModelNotFoundError(
                f"{self.spec.name} has no network {name!r}; it has {', '.join(self.spec.networks)}"
            )
        # Torch comes with the first network: model.json is read without it.
        from models.checkpoints.loading import give_weights, load_safetensors  # noqa: PLC0415
        from models.networks import build  # noqa: PLC0415
        from models.networks.undrawn import Undrawn  # noqa: PLC0415

        spec = self.spec.networks[name]
        self._check(spec.weights)
        tokenizer = self.spec.networks.get("vqvae")
        with Undrawn():
            network = build(spec.init, tokenizer.init if tokenizer else None)
        give_weights(network, load_safetensors(self.path(spec.weights)), allow_non_finite=allow_non_finite)
        return network

    def verify(self) -> None:
        """Compare every file with its recorded size and SHA-256.

        Raises:
            CheckpointError: a file is missing, changed or not recorded.
        """
        for file in self.spec.files:
            self._check(file)
        strange = set(list_files(self.directory)) - self.spec.files.keys()
        if strange:
            raise CheckpointError(
                f"{self.directory} holds files that are not recorded: {', '.join(sorted(strange))}"
            )

    def _check(self, file: str) -> None:
        path, recorded = self.path(file), self.spec.files[file]
        if path.stat().st_size != recorded.size or record(path) != recorded:
            raise CheckpointError(f"{path} is not the file that was published: its size or SHA-256 differs")


def open_version(directory: Path, number: int | None = None) -> ModelVersion:
    """Read `directory`/model.json.

    Raises:
        ModelNotFoundError: there is none.
        CheckpointError: it is not valid.
        UnsafeCheckpointError: a file that it names lies outside the directory.
    """
    path = directory / MODEL_FILE
    if not path.is_file():
        raise ModelNotFoundError(f"there is no {path}")
    if path.stat().st_size > _MAX_SPEC_BYTES:
        raise CheckpointError(f"{path} is larger than any {MODEL_FILE} needs to be")
    try:
        spec = ModelSpec.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise CheckpointError(f"{path} is not valid: {where}: {fault['msg']}") from error
    version = ModelVersion(directory, spec, number)
    for network in spec.networks.values():
        version.path(network.weights)
    for file in [*spec.files, *([spec.golden.file] if spec.golden else [])]:
        version.path(file)
    return version


def seal(directory: Path, spec: ModelSpec) -> ModelVersion:
    """Make `directory` a version: record size and SHA-256 of every file in it and write `model.json`.

    Args:
        directory: holds the files that `spec` names.
        spec: what they are; its `files` are filled in.

    Raises:
        UnsafeCheckpointError: there is a link among the files, or `spec` names one outside the directory.
        CheckpointError: a file that `spec` names is missing.
    """
    files = {file: record(directory / file) for file in list_files(directory)}
    spec.model_copy(update={"files": files}).save(directory)
    # safetensors writes private files, but a server may run as another user than the publisher.
    mode = (directory / MODEL_FILE).stat().st_mode
    for file in files:
        (directory / file).chmod(mode)
    return open_version(directory)


def record(path: Path) -> FileRecord:
    """Measure a file: its size in bytes and SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(size=path.stat().st_size, sha256=digest)


def list_files(directory: Path) -> list[str]:
    """Name every file below `directory` but `model.json`, with `/` between the parts, sorted.

    Raises:
        UnsafeCheckpointError: one of them is a link or no regular file.
    """
    names = []
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UnsafeCheckpointError(f"{path} is not a regular file")
        if path.is_file() and path != directory / MODEL_FILE:
            names.append(path.relative_to(directory).as_posix())
    return names
