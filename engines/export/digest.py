"""What a program is, as one number: two programs of equal digest are exported alike."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import engines.programs
import models.networks
from engines.code_digest import code_digest
from engines.errors import EngineError
from engines.programs.program import Program

EXPORTERS = ("torch", "onnx", "onnxscript")


def program_digest(program: Program) -> str:
    """Return the SHA-256 (hexadecimal) of a program: its ports, code, settings, weights, and the exporters.

    Profiles are left out: the exported file does not depend on them.

    Raises:
        EngineError: a package that exporting needs is missing.
    """
    hasher = hashlib.sha256()
    ports = [
        [[port.name, port.shape, str(port.dtype)] for port in side]
        for side in (program.inputs, program.outputs)
    ]
    facts = {
        "name": program.name,
        "ports": ports,
        "opset": program.opset,
        "versions": exporter_versions(),
        "modules": [[name, *_settings(module)] for name, module in program.module.named_modules()],
    }
    hasher.update(json.dumps(facts, sort_keys=True).encode())
    hasher.update(code_digest(engines.programs, models.networks).encode())
    for name, tensor in (*program.module.named_parameters(), *program.module.named_buffers()):
        hasher.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        hasher.update(_bytes(tensor))
    return hasher.hexdigest()


def exporter_versions() -> dict[str, str]:
    """Return the versions of the packages that export.

    Raises:
        EngineError: one is missing.
    """
    missing = [package for package in EXPORTERS if find_spec(package) is None]
    if missing:
        raise EngineError(
            f"exporting to ONNX needs {' and '.join(missing)}: pip install 'ddo-serve[tensorrt-rtx]'"
        )
    return {package: version(package) for package in EXPORTERS}


def _settings(module: nn.Module) -> tuple[str, dict[str, str]]:
    """Return a module's class, and what it was set to beside its tensors."""
    cls = type(module)
    settings: dict[str, Any] = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    return f"{cls.__module__}.{cls.__qualname__}", {key: repr(value) for key, value in settings.items()}


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
