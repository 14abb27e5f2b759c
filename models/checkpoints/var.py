"""VAR's constructor arguments, which its checkpoints do not hold, read off the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from models.errors import CheckpointError

PATCH_NUMS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
"""Sides of the token maps of the published 256x256 models (Tian et al. 2024, Section 4)."""

_HEAD_DIM = 64


def is_var(state: Mapping[str, Tensor]) -> bool:
    """Tell whether these are the tensors of VAR's transformer."""
    return "pos_1LC" in state and "head.weight" in state


def is_vqvae(state: Mapping[str, Tensor]) -> bool:
    """Tell whether these are the tensors of VAR's tokenizer."""
    return "quantize.embedding.weight" in state


def var_init(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the constructor arguments of the VAR that has these tensors.

    The sides of the token maps follow from the buffer `lvl_1L`, which numbers each token's scale. Queries and
    keys are normalised where the tensors have a scale for it; without one, heads are 64 wide as in all
    published models.

    Raises:
        CheckpointError: a tensor that is needed is missing or of an impossible shape.
    """
    classes, width = _shape(state, "class_emb.weight", 2)
    vocabulary, _ = _shape(state, "head.weight", 2)
    _, z_channels = _shape(state, "word_embed.weight", 2)
    l2_norm = "blocks.0.attn.scale_mul_1H11" in state
    heads = _shape(state, "blocks.0.attn.scale_mul_1H11", 4)[1] if l2_norm else width // _HEAD_DIM
    return {
        "class_name": "VAR",
        "patch_nums": _patch_nums(state),
        "num_classes": classes - 1,
        "depth": _count(state, "blocks."),
        "embed_dim": width,
        "num_heads": heads,
        "attn_l2_norm": l2_norm,
        "shared_aln": "shared_ada_lin.1.weight" in state,
        "vocab_size": vocabulary,
        "z_channels": z_channels,
    }


def vqvae_init(state: Mapping[str, Tensor], patch_nums: Sequence[int] = PATCH_NUMS) -> dict[str, Any]:
    """Return the constructor arguments of the tokenizer that has these tensors.

    Args:
        state: the tokenizer's tensors.
        patch_nums: sides of the token maps. The tensors tell only how many there are; the VAR that was
            trained on the tokenizer knows them.

    Raises:
        CheckpointError: a tensor that is needed is missing, or the number of token maps is another one.
    """
    vocabulary, z_channels = _shape(state, "quantize.embedding.weight", 2)
    scales, _ = _shape(state, "quantize.ema_vocab_hit_SV", 2)
    if scales != len(patch_nums):
        raise CheckpointError(
            f"the tokenizer has {scales} scales, not the {len(patch_nums)} of {tuple(patch_nums)}"
        )
    return {
        "class_name": "VQVAE",
        "patch_nums": list(patch_nums),
        "vocab_size": vocabulary,
        "z_channels": z_channels,
        "ch": _shape(state, "encoder.conv_in.weight", 4)[0],
        "share_quant_resi": _count(state, "quantize.quant_resi.qresi_ls."),
    }


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> torch.Size:
    if name not in state:
        raise CheckpointError(f"this is not VAR's: it lacks {name}")
    if state[name].ndim != dimensions:
        raise CheckpointError(f"{name} has the shape {tuple(state[name].shape)}, not {dimensions} dimensions")
    return state[name].shape


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})


def _patch_nums(state: Mapping[str, Tensor]) -> list[int]:
    _shape(state, "lvl_1L", 2)
    levels = state["lvl_1L"].flatten()
    counts = torch.unique_consecutive(levels, return_counts=True)[1].tolist()
    sides = [math.isqrt(count) for count in counts]
    if not sides or [side * side for side in sides] != counts:
        raise CheckpointError(f"lvl_1L gives token maps of {counts} tokens, which are not squares")
    return sides
