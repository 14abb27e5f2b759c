"""From a model version to its engines on a GPU."""

from __future__ import annotations

from pathlib import Path

import torch

from engines.cuda import CudaDevice
from engines.tensorrt.api import tensorrt
from engines.tensorrt.runtime import Engine
from engines.tensorrt.store import EngineStore
from models.version import ModelVersion


def load_engine(version: ModelVersion, program: str, *, directory: Path, device: torch.device) -> Engine:
    """Load the engine of a version's program that was built last.

    Args:
        version: what was built.
        program: its program's name.
        directory: the folder that `python -m engines build` filled.
        device: a GPU.

    Raises:
        EngineError: TensorRT, a GPU or the engine is missing, or the engine cannot be loaded.
    """
    gpu, api = CudaDevice(device), tensorrt()
    stored = EngineStore(directory).find(
        version, program, package=api.__name__, package_version=api.__version__
    )
    return Engine(stored, gpu, api)
