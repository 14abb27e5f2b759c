"""From VAR's logits to tokens as a program: guidance, temperature, Gumbel noise, argmax."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.programs.program import Port, Program, Range, log_normal
from models.networks.var import VAR


class TokenHead(nn.Module):
    """Draws tokens from softmax(logits / temperature), guided; truncation is the caller's.

    Guidance is Ho and Salimans 2022, arXiv 2207.12598, Equation 6; a draw is the argmax of the logits plus
    Gumbel noise (Maddison et al. 2014, arXiv 1411.0030, Section 2).
    """

    def forward(
        self, conditional: Tensor, unconditional: Tensor, weight: Tensor, temperature: Tensor, noise: Tensor
    ) -> Tensor:
        """Return ids (B, tokens), int64.

        Args:
            conditional: logits of the class, (B, tokens, V) float32.
            unconditional: logits without it, likewise; at weight 0 they do nothing.
            weight: guidance weights, (B,) float32.
            temperature: (B,) float32, above 0.
            noise: Gumbel noise (B, tokens, V), float32; zeros take the likeliest token.
        """
        weight, temperature = weight[:, None, None], temperature[:, None, None]
        guided = (1 + weight) * conditional - weight * unconditional
        return (guided / temperature + noise).argmax(dim=-1)


def gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw Gumbel noise."""
    return -torch.empty(shape).exponential_(generator=generator).log()


def var_sampling_program(var: VAR, *, max_rows: int) -> Program:
    """Return the program `tokens`, with a profile for each scale."""
    shape = ("batch", "tokens", var.vocab_size)
    return Program(
        name="tokens",
        module=TokenHead().eval(),
        inputs=(
            Port("conditional", shape),
            Port("unconditional", shape),
            Port("weight", ("batch",)),
            Port("temperature", ("batch",), draw=log_normal),
            Port("noise", shape, draw=gumbel),
        ),
        outputs=(Port("ids", ("batch", "tokens"), torch.int64),),
        profiles=tuple(
            {"batch": Range(1, max_rows, max_rows), "tokens": Range(tokens, tokens, tokens)}
            for tokens in var.scales.tokens
        ),
    )
