"""What a program is, as one number: two programs of equal digest are exported alike."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import engines.programs
import models.networks
from engines.programs.program import Program

EXPORTERS = ("torch", "onnx", "onnxscript")


def program_digest(program: Program) -> str:
    """Return the SHA-256 (hexadecimal) of a program: its ports, code, settings, weights, and the exporters.

    Profiles are left out: the exported file does not depend on them.
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
        "versions": {package: version(package) for package in EXPORTERS},
        "modules": [[name, *_settings(module)] for name, module in program.module.named_modules()],
    }
    hasher.update(json.dumps(facts, sort_keys=True).encode())
    for package in (engines.programs, models.networks):
        for source in sorted(Path(package.__path__[0]).glob("*.py")):
            hasher.update(source.read_bytes())
    for name, tensor in (*program.module.named_parameters(), *program.module.named_buffers()):
        hasher.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        hasher.update(_bytes(tensor))
    return hasher.hexdigest()


def _settings(module: nn.Module) -> tuple[str, dict[str, str]]:
    """Return a module's class, and what it was set to beside its tensors."""
    cls = type(module)
    settings: dict[str, Any] = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    return f"{cls.__module__}.{cls.__qualname__}", {key: repr(value) for key, value in settings.items()}


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
