"""Programs of small networks filled by the rule, and where they are exported to."""

from __future__ import annotations

import json

import torch
from reference import DATA, fill
from torch import nn
from var_tiny import tiny_var, tiny_vqvae

from engines.diffusion import SLOTS
from engines.programs.decoders import vqvae_program
from engines.programs.diffusion import diffusion_programs
from engines.programs.diffusion_step import DiffusionStep
from engines.programs.program import Program
from engines.programs.var_cached_step import var_cached_step_program
from engines.programs.var_sampling import var_sampling_program
from engines.programs.var_step import var_step_program
from models import build

MAX_ROWS = 4
SMALL_EDM = {
    "class_name": "EDMPrecond",
    "model_type": "SongUNet",
    "img_resolution": 8,
    "img_channels": 3,
    "label_dim": 10,
    "model_channels": 32,
    "channel_mult": [1],
    "num_blocks": 1,
    "attn_resolutions": [8],
}
SMALL_EDM2 = {
    "class_name": "Precond",
    "img_resolution": 8,
    "img_channels": 3,
    "label_dim": 10,
    "model_channels": 64,
    "channel_mult": [1],
    "num_blocks": 1,
    "attn_resolutions": [8],
}


def network(name: str, dtype: torch.dtype = torch.float32, salt: str = "") -> nn.Module:
    return prepared(json.loads((DATA / f"{name}.json").read_text())["init"], dtype, salt)


def prepared(init: dict[str, object], dtype: torch.dtype, salt: str = "") -> nn.Module:
    net = fill(build(init), salt)
    net.prepare_inference(dtype)
    return net


def diffusion(step: DiffusionStep) -> dict[str, Program]:
    side = step.network.img_resolution
    programs = diffusion_programs(step, shape=(3, side, side), slots=SLOTS, max_rows=MAX_ROWS)
    return {program.name: program for program in programs}


def var(dtype: torch.dtype) -> dict[str, Program]:
    transformer, tokenizer = tiny_var(), tiny_vqvae()
    transformer.blocks.to(dtype)
    for part in (tokenizer.post_quant_conv, tokenizer.decoder):
        part.to(dtype)
    programs = [
        var_step_program(transformer, max_branches=2 * MAX_ROWS),
        var_cached_step_program(transformer, max_branches=2 * MAX_ROWS),
        var_sampling_program(transformer, max_rows=MAX_ROWS),
        vqvae_program(tokenizer, max_rows=MAX_ROWS),
    ]
    return {program.name: program for program in programs}
