"""Programs as ONNX files, cached by what they were made from."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from engines.export.digest import exporter_versions, program_digest
from engines.export.dynamic import Positional, dynamic_shapes, example
from engines.programs.program import Program

_FILE = "model.onnx"


@dataclass(frozen=True)
class OnnxFile:
    """An exported program.

    Attributes:
        path: the file; its weights lie beside it.
        digest: of the program; see `program_digest`.
    """

    path: Path
    digest: str


class OnnxCache:
    """A folder of exported programs, one subfolder a digest. A damaged one is deleted by whoever finds it.

    Args:
        directory: need not exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, program: Program, digest: str | None = None) -> OnnxFile:
        """Return a program's ONNX file, exported if it is not there yet.

        Args:
            program: its inputs and outputs give the tensors their names; named dimensions stay dynamic.
            digest: of the program, if it is known already.

        Raises:
            EngineError: a package that exporting needs is missing.
        """
        digest = digest or program_digest(program)
        target = self._directory / digest
        if not (target / _FILE).is_file():
            self._directory.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".export-", dir=self._directory))
            try:
                export(program, staging / _FILE)
                if not target.exists():  # Another process may have been faster.
                    staging.rename(target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return OnnxFile(target / _FILE, digest)


def export(program: Program, path: Path) -> None:
    """Write a program as ONNX to `path`, its weights beside it.

    Raises:
        EngineError: a package that exporting needs is missing.
    """
    exporter_versions()
    exported = torch.onnx.export(
        Positional(program.module).eval(),
        example(program),
        dynamo=True,
        opset_version=program.opset,
        dynamic_shapes=dynamic_shapes(program),
        input_names=[port.name for port in program.inputs],
        output_names=[port.name for port in program.outputs],
        verbose=False,
    )
    assert exported is not None
    exported.save(path, external_data=True)
