"""How an engine is built."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from models.frozen import FrozenModel

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]


class EngineSettings(FrozenModel):
    """Which backend computes, where, and how wide.

    Attributes:
        backend: what compiles and runs the networks; `auto` is OpenVINO on a CPU where it is installed,
            and torch elsewhere. `tensorrt` runs engines that `python -m engines build` made. On a GPU
            `torch-compile` launches calls as CUDA graphs, diffusion's of compiled kernels, and
            `torch-tensorrt` compiles diffusion networks when they are loaded.
        device: torch's name of the device.
        precision: of the networks; `auto` takes what the device does fastest. TensorRT's engines have
            their own.
        threads: of the device, None for all cores.
        max_rows: most rows of one engine call.
        cache: folder for compiled networks; None: `ddo-serve` in the user's cache folder. It may be deleted.
        compiled: folder of TensorRT's engines.
    """

    backend: Literal["auto", "openvino", "tensorrt", "torch", "torch-compile", "torch-tensorrt"] = "auto"
    device: str = "cpu"
    precision: Precision = "auto"
    threads: int | None = Field(default=None, ge=1)
    max_rows: int = Field(default=8, ge=1)
    cache: Path | None = None
    compiled: Path = Path("compiled")
