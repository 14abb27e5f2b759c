"""From a model version on disk to an engine that makes its images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch

from engines.backends.choice import make_backend, var_buckets
from engines.base import Engine
from engines.cuda import CudaDevice
from engines.diffusion import DiffusionEngine
from engines.diffusion_row import DiffusionRow
from engines.errors import EngineError
from engines.graphed_scale_decoder import GraphedScaleDecoder
from engines.heap import keep_freed_memory
from engines.pixels import make_decoder
from engines.precision import choose_dtype
from engines.scale_decoder import ScaleDecoder
from engines.settings import EngineSettings
from engines.tensorrt.loading import load_engine
from engines.tensorrt.record import DTYPES
from engines.tensorrt.scale_decoder import TensorRTScaleDecoder
from engines.var import VarEngine
from engines.var_row import VarRow
from engines.version_programs import step_of
from models.networks.var import VAR
from models.networks.vqvae import VQVAE
from models.spec import DiffusionDefaults, VarDefaults, VqvaeCodec
from models.version import ModelVersion


def load(version: ModelVersion, settings: EngineSettings) -> Engine[DiffusionRow] | Engine[VarRow]:
    """Build the engine of `version`.

    Raises:
        ModelError: a file of the version is missing or damaged.
        EngineError: the device, a package or a network that it needs is missing.
    """
    device, dtype = _place(settings)
    spec = version.spec
    match spec.defaults:
        case DiffusionDefaults() as defaults:
            return _load_diffusion(version, defaults, settings, device=device, dtype=dtype, decode=True)
        case VarDefaults() as defaults:
            if not isinstance(spec.codec, VqvaeCodec):
                raise EngineError(f"a VAR model cannot decode with the codec {spec.codec.kind!r}")
            found = var_buckets(version, settings, dtype) if device.type == "cpu" else None
            transformer: Callable[..., ScaleDecoder] = partial(ScaleDecoder, bucket_cache=found)
            if settings.backend == "torch-tensorrt":
                raise EngineError(
                    "the backend 'torch-tensorrt' compiles diffusion networks alone; for VAR use 'tensorrt' "
                    "or 'torch-compile'"
                )
            if settings.backend == "torch-compile" and device.type == "cuda":
                transformer = partial(GraphedScaleDecoder, graphs=CudaDevice(device))
            if settings.backend == "tensorrt":
                engine = load_engine(version, "scale", directory=settings.compiled, device=device)
                dtype = DTYPES[engine.record.precision]
                transformer = partial(TensorRTScaleDecoder, engine=engine)
            return VarEngine(
                cast(VAR, version.network("main")),
                cast(VQVAE, version.network(spec.codec.network)),
                defaults=defaults,
                num_classes=len(spec.class_names),
                device=device,
                dtype=dtype,
                max_rows=settings.max_rows,
                capacity=2 * settings.max_rows,
                transformer=transformer,
                bucket_cache=found,
            )


def load_sampler(version: ModelVersion, settings: EngineSettings) -> DiffusionEngine:
    """Build the engine of a diffusion model without its decoder: rows end with `DiffusionEngine.sample`.

    Raises:
        ModelError: a file of the version is missing or damaged.
        EngineError: it is no diffusion model, or the device cannot be used.
    """
    device, dtype = _place(settings)
    if not isinstance(version.spec.defaults, DiffusionDefaults):
        raise EngineError(f"{version.spec.name} is no diffusion model: it has images alone, no samples")
    return _load_diffusion(version, version.spec.defaults, settings, device=device, dtype=dtype, decode=False)


def _place(settings: EngineSettings) -> tuple[torch.device, torch.dtype]:
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        device = torch.empty(0, device=settings.device).device
    except (RuntimeError, AssertionError) as error:
        raise EngineError(f"the device {settings.device!r} cannot be used: {error}") from error
    if device.type == "cpu":
        keep_freed_memory()
    return device, choose_dtype(settings.precision, device)


def _load_diffusion(
    version: ModelVersion,
    defaults: DiffusionDefaults,
    settings: EngineSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    decode: bool,
) -> DiffusionEngine:
    spec = version.spec
    init = spec.networks["main"].init
    return DiffusionEngine(
        step_of(version),
        make_backend(version, settings, device, dtype),
        make_decoder(spec.codec, device, dtype) if decode else None,
        shape=(init["img_channels"], init["img_resolution"], init["img_resolution"]),
        defaults=defaults,
        num_classes=len(spec.class_names),
        max_rows=settings.max_rows,
        capacity=8 * settings.max_rows,
    )
