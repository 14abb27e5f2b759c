"""Training without the label now and then, as classifier-free guidance needs (arXiv 2207.12598, Alg. 1)."""

from __future__ import annotations

from torch import Tensor


def drop_labels(class_ids: Tensor, dropped: Tensor, no_class: int) -> Tensor:
    """Return `class_ids` (B,) with `no_class` wherever `dropped`, (B,) bool, says so."""
    return class_ids.masked_fill(dropped, no_class)
