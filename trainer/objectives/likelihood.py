"""Maximum-likelihood training of VAR (Tian et al. 2024, arXiv 2404.02905, Section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.networks.scales import Scales

TokenPredictor = Callable[[Tensor, Tensor], Tensor]


class TokenBatch(NamedTuple):
    """Images as the token predictor sees them.

    Attributes:
        class_ids: (B,) int64.
        ids: the token ids of all scales, (B, L) int64.
        var_input: the tokenizer's teacher-forcing input of `ids`, (B, L - tokens of scale 0, Z) float32.
    """

    class_ids: Tensor
    ids: Tensor
    var_input: Tensor


def token_losses(network: TokenPredictor, class_ids: Tensor, ids: Tensor, var_input: Tensor) -> Tensor:
    """Return -log p of each token given the class and all coarser scales, (B, L) float32, in nats.

    Their mean is VAR's training loss. The network may compute in a lower precision; the log-softmax is taken
    in float32.

    Args:
        network: maps (class_ids, var_input) to logits (B, L, V).
        class_ids: (B,) int64.
        ids: the token ids of all scales, (B, L) int64.
        var_input: teacher-forcing input of `ids`, (B, L - tokens of scale 0, Z).
    """
    logits = network(class_ids, var_input).float()
    return F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)


def means_by_scale(losses: Tensor, scales: Scales) -> Tensor:
    """Return the mean loss of each scale, (scales,), of `token_losses` (B, L): where a model is weak."""
    return torch.stack([losses[:, span].mean() for span in scales.spans])
