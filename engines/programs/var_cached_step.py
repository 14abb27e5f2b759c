"""The VAR step over caches that stay in place, for backends with layers made for that."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from engines.programs.program import Port, Program, Range
from engines.programs.var_step import conditioned_inputs, unit_vectors
from models.networks.var import VAR, Modulation

OPSET = 24
"""The ONNX version that has TensorScatter and Attention."""


def scatter(cache: Tensor, new: Tensor, start: Tensor) -> Tensor:
    """Return `cache` (B, heads, length, head_dim) with `new` written from place `start` (B,), int64, on.

    Exported it is ONNX's TensorScatter (opset 24), which backends do in place.
    """
    if torch.compiler.is_exporting():
        written: Tensor = torch.onnx.ops.symbolic(
            "::TensorScatter",
            [cache, new, start],
            attrs={"axis": 2, "mode": "linear"},
            dtype=cache.dtype,
            shape=cache.shape,
            version=OPSET,
        )
        return written
    places = start[:, None] + torch.arange(new.shape[2], device=start.device)
    return cache.scatter(2, places[:, None, :, None].expand_as(new), new)


@dataclass(frozen=True)
class Caches:
    """The caches of all layers: a `models.networks.var.KeyValueStore`.

    Attributes:
        parts: keys and values of each layer by turns, (B, heads, length, head_dim) each.
        start: place of the new tokens, (B,), int64.
        written: the same caches with the new tokens, of the layers so far.
    """

    parts: tuple[Tensor, ...]
    start: Tensor
    written: list[Tensor] = field(default_factory=list)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values; return the whole caches, the places not yet written included."""
        own = self.parts[2 * layer : 2 * layer + 2]
        seen = tuple(scatter(cache, new, self.start) for cache, new in zip(own, (keys, values), strict=True))
        self.written.extend(seen)
        return seen[0], seen[1]


class VarCachedStep(nn.Module):
    """`VarScaleStep` with keys and values in caches of a whole sequence's length.

    Attention goes over whole caches, so a mask hides the places that no token was written to.
    """

    def __init__(self, var: VAR) -> None:
        super().__init__()
        self.var = var

    def forward(
        self, x: Tensor, blocks: Tensor, head: Tensor, start: Tensor, *parts: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the logits (B, tokens, V), float32, and the caches with the scale's keys and values.

        Args:
            x: embedded inputs, see `VarScaleStep`.
            blocks: modulation of the layers, likewise.
            head: modulation of the head, likewise.
            start: tokens before the scale, (B,), int64.
            parts: keys and values of each layer by turns, (B, heads, length, head_dim) each.
        """
        end = start + x.shape[1]
        places = torch.arange(parts[0].shape[2], device=start.device)
        hidden = torch.where(places < end[:, None], 0.0, -math.inf)
        mask = hidden[:, None, None].expand(-1, 1, x.shape[1], -1)
        caches = Caches(parts, start)
        logits = self.var.logits(x, Modulation(blocks, head), mask=mask, cache=caches)
        return logits, *caches.written


def var_cached_step_program(var: VAR, *, max_branches: int) -> Program:
    """Return the program `cached-scale`, with a profile for each scale.

    Each output `written_...` is the input `cache_...` after the call, and may be the same memory.

    Args:
        var: the network, prepared for the precision to compute in.
        max_branches: sequences of a call at most.
    """
    shape = ("batch", var.num_heads, var.scales.length, var.embed_dim // var.num_heads)
    names = [f"{part}_{layer}" for layer in range(len(var.blocks)) for part in ("keys", "values")]
    longest = max(var.scales.tokens)
    last = var.scales.length - longest

    def places(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(last + 1, shape, generator=generator)

    return Program(
        name="cached-scale",
        module=VarCachedStep(var).eval(),
        inputs=(
            *conditioned_inputs(var, "tokens"),
            Port("start", ("batch",), torch.int64, places),
            *(Port(f"cache_{name}", shape, var.dtype, unit_vectors) for name in names),
        ),
        outputs=(
            Port("logits", ("batch", "tokens", var.vocab_size)),
            *(Port(f"written_{name}", shape, var.dtype) for name in names),
        ),
        profiles=tuple(
            {"batch": Range(1, max_branches, max_branches), "tokens": Range(tokens, tokens, tokens)}
            for tokens in var.scales.tokens
        ),
        opset=OPSET,
    )
