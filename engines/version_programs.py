"""The programs that a model version consists of."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from engines.diffusion import SLOTS
from engines.errors import EngineError
from engines.pixels import load_sd_vae
from engines.programs.decoders import sd_vae_program, vqvae_program
from engines.programs.diffusion import diffusion_programs
from engines.programs.diffusion_step import DiffusionStep
from engines.programs.program import Program
from engines.programs.var_cached_step import var_cached_step_program
from engines.programs.var_sampling import var_sampling_program
from engines.programs.var_step import var_step_program
from models.networks.var import VAR
from models.networks.vqvae import VQVAE
from models.spec import SdVaeCodec, VqvaeCodec
from models.version import ModelVersion


def programs_of(
    version: ModelVersion, dtype: torch.dtype, *, max_rows: int, native_cache: bool = False
) -> list[Program]:
    """Load a version's networks and return everything of it that a backend may compile.

    EDM and EDM2: `plain`, `guided` where the model has a guide, and `pixels` where it works on latents. VAR:
    `scale`, or with `native_cache` `cached-scale`, whose keys and values stay in place; `tokens`; `pixels`.

    Args:
        version: the model.
        dtype: precision of convolutions and transformer layers; the rest stays float32.
        max_rows: most images of a call.
        native_cache: VAR only, for backends with layers that update a cache.

    Raises:
        ModelError: a file of the version is missing or damaged.
        EngineError: a package or a network that it needs is missing, or no decoder fits the model.
    """
    spec = version.spec
    if spec.family != "var":
        return _diffusion(version, dtype, max_rows)
    if not isinstance(spec.codec, VqvaeCodec):
        raise EngineError(f"a VAR model cannot decode with the codec {spec.codec.kind!r}")
    var = cast(VAR, version.network("main"))
    var.blocks.to(dtype)
    transformer = var_cached_step_program if native_cache else var_step_program
    return [
        transformer(var, max_branches=2 * max_rows),
        var_sampling_program(var, max_rows=max_rows),
        vqvae_program(_prepared_tokenizer(version, spec.codec.network, dtype), max_rows=max_rows),
    ]


def step_of(version: ModelVersion) -> DiffusionStep:
    """Load the networks of a diffusion model.

    Raises:
        ModelError: a file of the version is missing or damaged.
    """
    network = version.network("main")
    guide: nn.Module | None = None
    if version.spec.guidance == "guide":
        guide = version.network("guide")
    elif version.spec.guidance == "label-dropout":
        guide = network
    return DiffusionStep(network, guide)


def _diffusion(version: ModelVersion, dtype: torch.dtype, max_rows: int) -> list[Program]:
    spec, step = version.spec, step_of(version)
    for network in (step.network, step.guide):
        if network is not None:
            network.prepare_inference(dtype)  # type: ignore[operator]
    init = spec.networks["main"].init
    side = init["img_resolution"]
    programs = diffusion_programs(
        step, shape=(init["img_channels"], side, side), slots=SLOTS, max_rows=max_rows
    )
    if isinstance(spec.codec, SdVaeCodec):
        vae = load_sd_vae(spec.codec.repository, torch.device("cpu"), dtype)
        programs.append(sd_vae_program(vae, spec.codec, side=side, max_rows=max_rows))
    return programs


def _prepared_tokenizer(version: ModelVersion, name: str, dtype: torch.dtype) -> VQVAE:
    vqvae = cast(VQVAE, version.network(name))
    for part in (vqvae.post_quant_conv, vqvae.decoder):
        part.to(dtype)
    return vqvae
