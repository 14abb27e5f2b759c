"""From a transformer's logits to tokens: guidance, truncation, Gumbel noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.spec import VarDefaults


def guide(conditional: Tensor, unconditional: Tensor, weight: float) -> Tensor:
    """Return (1 + t) conditional - t unconditional with t = `weight`; 0 is no guidance.

    Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598, Equation 6).
    """
    return (1 + weight) * conditional - weight * unconditional


def truncate(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set the logits of unlikely tokens to minus infinity.

    Args:
        logits: (..., V).
        top_k: keep the k likeliest tokens and those as likely as the last of them; 0: all.
        top_p: of those, drop the unlikeliest whose probabilities sum to at most 1 - p, but never the
            likeliest (nucleus sampling, Holtzman et al. 2020, arXiv 1904.09751); 0: drop none.
    """
    if top_k:
        least = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if top_p:
        ascending, order = logits.sort(dim=-1)
        dropped = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
        dropped[..., -1] = False
        logits = logits.masked_fill(dropped.scatter(-1, order, dropped), -math.inf)
    return logits


@dataclass(frozen=True)
class TokenSampler:
    """Draws the tokens of one image.

    A draw from softmax(logits / temperature), truncated, is the argmax of those logits plus Gumbel noise
    (Maddison et al. 2014, arXiv 1411.0030, Section 2).

    Attributes:
        settings: temperature (above 0; below 1 sharpens), top_k and top_p (see `truncate`).
        generator: source of the noise, on the CPU whatever the logits' device, so that a seed means the same
            noise everywhere; None: no noise, the likeliest token.
    """

    settings: VarDefaults
    generator: torch.Generator | None

    def draw(self, logits: Tensor) -> Tensor:
        """Return ids (tokens,), int64, for logits (tokens, V), float32."""
        logits = truncate(logits / self.settings.temperature, self.settings.top_k, self.settings.top_p)
        if self.generator is not None:
            uniform = torch.rand(logits.shape, generator=self.generator)
            logits = logits - (-uniform.log()).log().to(logits.device)
        return logits.argmax(dim=-1)
