"""One scale of VAR's transformer as a program: keys and values of the past in, those of the scale out."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.programs.program import Port, Program, Range
from models.networks.var import VAR, Modulation
from models.networks.var_block import MODULATIONS


@dataclass(frozen=True)
class Past:
    """Keys and values of the scales before: a `models.networks.var.KeyValueStore`.

    Attributes:
        data: (depth, 2, B, heads, tokens before, head_dim).
        added: of each layer so far the new keys and values, (2, B, heads, tokens, head_dim).
    """

    data: Tensor
    added: list[Tensor] = field(default_factory=list)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep new keys and values; return all of the sequence so far."""
        self.added.append(torch.stack((keys, values)))
        past_keys, past_values = self.data[layer].unbind(0)
        return torch.cat((past_keys, keys), dim=2), torch.cat((past_values, values), dim=2)


class VarScaleStep(nn.Module):
    """The layers and the head of VAR, over the tokens of one scale (Tian et al. 2024, arXiv 2404.02905).

    Args:
        var: the network; its blocks' precision is that of keys and values.
    """

    def __init__(self, var: VAR) -> None:
        super().__init__()
        self.var = var

    def forward(self, x: Tensor, blocks: Tensor, head: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the scale's own keys and values.

        Args:
            x: embedded inputs of the scale, (B, tokens, C) float32.
            blocks: what the class does to the layers; see `models.networks.var.Modulation`.
            head: what it does to the head, likewise.
            past: keys and values of the scales before, (depth, 2, B, heads, tokens before, head_dim).

        Returns:
            (B, tokens, V) float32, and (depth, 2, B, heads, tokens, head_dim).
        """
        cache = Past(past)
        logits = self.var.logits(x, Modulation(blocks, head), cache=cache)
        return logits, torch.stack(cache.added)


def unit_vectors(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw vectors of length one, as keys are."""
    return F.normalize(torch.randn(shape, generator=generator), dim=-1)


def conditioned_inputs(var: VAR, tokens: int | str) -> tuple[Port, ...]:
    """Return the ports of embedded inputs and modulation, which every form of the step has."""
    depth, width = len(var.blocks), var.embed_dim
    return (
        Port("x", ("batch", tokens, width)),
        Port("blocks", ("batch", depth, MODULATIONS, width)),
        Port("head", ("batch", 2, width), var.head.weight.dtype),
    )


def var_step_program(var: VAR, *, max_branches: int) -> Program:
    """Return the program `scale`, with a profile for each scale.

    Args:
        var: the network, prepared for the precision to compute in.
        max_branches: most sequences of a call; a guided image is two.
    """
    heads, depth = var.num_heads, len(var.blocks)

    def keys_and_values(name: str, tokens: str) -> Port:
        shape = (depth, 2, "batch", heads, tokens, var.embed_dim // heads)
        return Port(name, shape, var.dtype, unit_vectors)

    def fixed(size: int) -> Range:
        return Range(size, size, size)

    return Program(
        name="scale",
        module=VarScaleStep(var).eval(),
        inputs=(*conditioned_inputs(var, "tokens"), keys_and_values("past", "past_tokens")),
        outputs=(
            Port("logits", ("batch", "tokens", var.vocab_size)),
            keys_and_values("new", "tokens"),
        ),
        profiles=tuple(
            {
                "batch": Range(1, max_branches, max_branches),
                "tokens": fixed(span.stop - span.start),
                "past_tokens": fixed(span.start),
            }
            for span in var.scales.spans
        ),
    )
