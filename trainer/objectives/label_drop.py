"""Training without the label now and then, as classifier-free guidance needs (arXiv 2207.12598, Alg. 1)."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_label_drop(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Draw which of `count` rows lose their label, (count,) bool."""
    return torch.rand(count, generator=generator) < probability


def drop_labels(class_ids: Tensor, dropped: Tensor, no_class: int) -> Tensor:
    """Return `class_ids` (B,) with `no_class` wherever `dropped` (B,) says so."""
    return class_ids.masked_fill(dropped, no_class)
