"""Which backend runs a version's diffusion networks."""

from __future__ import annotations

import hashlib
import json

import torch

import engines
import models.networks
from engines.backends.artifact_cache import ArtifactCache, default_folder
from engines.backends.base import Backend
from engines.backends.bucket_cache import BucketCache, torch_sources
from engines.backends.tensorrt_backend import TensorRTBackend
from engines.backends.torch_backend import TorchBackend
from engines.backends.torch_compile_backend import TorchCompileBackend
from engines.backends.torch_tensorrt_backend import TorchTensorRTBackend
from engines.code_digest import code_digest
from engines.cuda import CudaDevice
from engines.errors import EngineError
from engines.settings import EngineSettings
from models.version import ModelVersion


def make_backend(
    version: ModelVersion, settings: EngineSettings, device: torch.device, dtype: torch.dtype
) -> Backend:
    """Return the backend that `settings` ask for; `auto` is OpenVINO on a CPU where it is installed.

    Args:
        version: whose networks it will compile.
        settings: of the engine.
        device: where to compute.
        dtype: float32 or bfloat16.

    Raises:
        EngineError: OpenVINO is asked for where it is not installed, or for another device than the CPU;
            TensorRT without a GPU, or without the version's engines or the package.
    """
    match settings.backend:
        case "tensorrt":
            return TensorRTBackend.of(version, settings.compiled, device)
        case "torch-tensorrt":
            return TorchTensorRTBackend.of(device, dtype, max_rows=settings.max_rows)
        case "torch-compile":
            return TorchCompileBackend(device, dtype, CudaDevice(device) if device.type == "cuda" else None)
    if settings.backend == "torch" or (settings.backend == "auto" and device.type != "cpu"):
        return TorchBackend(device, dtype)
    if device.type != "cpu":
        raise EngineError(f"the backend 'openvino' runs on the CPU, not on {device}; use 'auto' or 'torch'")
    try:
        from engines.backends.openvino_backend import OpenVinoBackend  # noqa: PLC0415
    except ImportError as error:
        if settings.backend == "auto":
            return TorchBackend(device, dtype)
        raise EngineError(
            f"the backend 'openvino' needs the package openvino: pip install openvino ({error})"
        ) from error
    return OpenVinoBackend(
        dtype,
        identity=weights_identity(version),
        cache=ArtifactCache(settings.cache or default_folder()),
        threads=torch.get_num_threads(),
        max_rows=settings.max_rows,
    )


def var_buckets(version: ModelVersion, settings: EngineSettings, dtype: torch.dtype) -> BucketCache:
    """Return what keeps the batch sizes of a VAR, which PyTorch runs on the CPU."""
    code = code_digest(engines, models.networks)
    sources = {"identity": weights_identity(version), "code": code, **torch_sources(dtype)}
    return BucketCache(ArtifactCache(settings.cache or default_folder()), sources)


def weights_identity(version: ModelVersion) -> str:
    """Return the SHA-256 of all that decides what a version computes; equal networks share it."""
    spec = version.spec
    networks = {
        name: {"init": network.init, "sha256": spec.files[network.weights].sha256}
        for name, network in spec.networks.items()
    }
    facts = {"networks": networks, "codec": spec.codec.model_dump(mode="json")}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
