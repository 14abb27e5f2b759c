"""A folder of engines, found by what they compute and never by their bytes.

DIRECTORY/MODEL/PROGRAM-PRECISION-KEY.engine      the engine
DIRECTORY/MODEL/PROGRAM-PRECISION-KEY.json        its `EngineRecord`
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from engines.errors import EngineError
from engines.tensorrt.record import EngineRecord
from models.version import ModelVersion, record


@dataclass(frozen=True)
class StoredEngine:
    """An engine file and its sidecar.

    Attributes:
        path: of the engine.
        record: what it is.
    """

    path: Path
    record: EngineRecord

    def read(self) -> bytes:
        """Return the engine.

        Raises:
            EngineError: the file is missing or not the one that was built.
        """
        # TensorRT itself looks at the head alone and would take a truncated file.
        if not self.intact():
            raise EngineError(f"{self.path} is not the engine that was built; delete it and build it again")
        return self.path.read_bytes()

    def intact(self) -> bool:
        """Whether the file has its size and SHA-256."""
        if not self.path.is_file():
            return False
        found = record(self.path)
        return (found.size, found.sha256) == (self.record.size, self.record.sha256)


class EngineStore:
    """Engines of any number of models.

    Args:
        directory: need not exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def by_key(self, model: str, key: str) -> StoredEngine | None:
        """Return the intact engine that was made from exactly this, if there is one."""
        found = (engine for engine in self._engines(model) if engine.record.key == key)
        return next((engine for engine in found if engine.intact()), None)

    def find(
        self, version: ModelVersion, program: str, *, package: str, package_version: str
    ) -> StoredEngine:
        """Return the engine of a version's program that was built last.

        Args:
            version: its weights must be those that the engine was built from.
            program: name of the program.
            package: what will run it.
            package_version: likewise; an engine runs with the version that built it alone.

        Raises:
            EngineError: there is none.
        """
        name = version.spec.name
        wanted = (weights_of(version), program, package, package_version)
        engines = [engine for engine in self._engines(name) if wanted == _source(engine.record)]
        if not engines:
            raise EngineError(
                f"{self._directory} has no engine of {name}'s {program!r} for {package} {package_version}: "
                f"python -m engines build {version.directory} --backend tensorrt --out {self._directory}"
            )
        return max(engines, key=lambda engine: engine.path.stat().st_mtime)

    def add(self, write: Callable[[Path], EngineRecord]) -> StoredEngine:
        """Keep a new engine; it appears whole or not at all.

        Args:
            write: writes the engine to the path that it is given and returns its record.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".engine-", dir=self._directory)
        os.close(descriptor)
        staging = Path(name)
        sidecar = staging.with_suffix(".json")
        try:
            made = write(staging)
            sidecar.write_text(made.model_dump_json(indent=2) + "\n")
            target = self._directory / made.model / made.file
            target.parent.mkdir(exist_ok=True)
            staging.chmod(sidecar.stat().st_mode)
            staging.replace(target)
            sidecar.replace(target.with_suffix(".json"))
        finally:
            staging.unlink(missing_ok=True)
            sidecar.unlink(missing_ok=True)
        return StoredEngine(target, made)

    def _engines(self, model: str) -> Iterator[StoredEngine]:
        for sidecar in sorted((self._directory / model).glob("*.json")):
            try:
                made = EngineRecord.model_validate_json(sidecar.read_bytes())
            except ValidationError as error:
                raise EngineError(f"{sidecar} does not describe an engine: {error}") from error
            path = sidecar.with_suffix(".engine")
            if path.is_file():
                yield StoredEngine(path, made)


def weights_of(version: ModelVersion) -> dict[str, str]:
    """Return the SHA-256 of a version's weights by the network's name."""
    spec = version.spec
    return {name: spec.files[network.weights].sha256 for name, network in spec.networks.items()}


def _source(made: EngineRecord) -> tuple[dict[str, str], str, str, str]:
    return made.weights, made.program, made.package, made.package_version
