"""From a version's program to an engine in the store: exported, checked, built and described."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.export.digest import program_digest
from engines.export.onnx import OnnxCache
from engines.export.parity import TOLERANCES, check
from engines.programs.program import Program
from engines.tensorrt.builder import SILENT, Builder, Target
from engines.tensorrt.progress import Steps
from engines.tensorrt.record import DTYPES, EngineRecord, Precision, ProfileRecord, TensorRecord, profiles_of
from engines.tensorrt.store import EngineStore, StoredEngine, weights_of
from models.version import ModelVersion, record


@dataclass(frozen=True)
class Workshop:
    """Where engines are made.

    Attributes:
        api: TensorRT; see `engines.tensorrt.api`.
        exports: the programs' ONNX files.
        store: the finished engines.
        steps: told how far a build is.
        checked: compare each export with its network by ONNX Runtime, where that can compute it.
    """

    api: Any
    exports: OnnxCache
    store: EngineStore
    steps: Steps = SILENT
    checked: bool = False

    def make(
        self, version: ModelVersion, program: Program, *, precision: Precision, target: Target
    ) -> StoredEngine:
        """Return the engine of a version's program, built if it is not there yet.

        Args:
            version: what the program was made of.
            program: computes in `precision`.
            precision: see `DTYPES`.
            target: what to build for.

        Raises:
            EngineError: a package is missing, the export computes something else, or TensorRT fails or
                complains.
        """
        digest = program_digest(program)
        profiles = profiles_of(program)
        key = self._key(digest, profiles, target)
        present = self.store.by_key(version.spec.name, key)
        if present is not None:
            return present
        onnx = self.exports.get(program, digest)
        if self.checked and DTYPES[precision] in TOLERANCES:
            check(onnx.path, program, TOLERANCES[DTYPES[precision]])
        built = Builder(self.api, self.steps).build(program, onnx.path, target)

        def write(path: Path) -> EngineRecord:
            path.write_bytes(built.plan)
            file = record(path)
            return EngineRecord(
                model=version.spec.name,
                version=version.number,
                weights=weights_of(version),
                program=program.name,
                precision=precision,
                digest=digest,
                key=key,
                inputs=tuple(TensorRecord.of(port) for port in program.inputs),
                outputs=tuple(TensorRecord.of(port) for port in program.outputs),
                profiles=profiles,
                package=self.api.__name__,
                package_version=self.api.__version__,
                capabilities=target.capabilities,
                refittable=target.refittable,
                layers=built.layers,
                seconds=round(built.seconds, 1),
                peak_bytes=built.peak_bytes,
                file=f"{program.name}-{precision}-{key[:12]}.engine",
                size=file.size,
                sha256=file.sha256,
            )

        return self.store.add(write)

    def _key(self, digest: str, profiles: tuple[ProfileRecord, ...], target: Target) -> str:
        facts = {
            "digest": digest,
            "profiles": [profile.model_dump() for profile in profiles],
            "capabilities": target.capabilities,
            "refittable": target.refittable,
            "package": [self.api.__name__, self.api.__version__],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
