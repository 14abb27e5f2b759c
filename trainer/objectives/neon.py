"""Neon: negative extrapolation from self-training (Alemohammad et al. 2025, arXiv 2510.03597)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def extrapolate(
    reference: Mapping[str, Tensor], self_trained: Mapping[str, Tensor], w: float
) -> dict[str, Tensor]:
    """Return theta = (1 + w) theta_ref - w theta_self, the step away from what self-training did.

    The equation is computed in float32 as theta_ref + w (theta_ref - theta_self). What did not train, and
    every tensor that is not of floating point, is the reference's own tensor.

    Args:
        reference: state dict of the model before it was trained on its own samples.
        self_trained: state dict after.
        w: strength; 0 gives the reference back.

    Raises:
        ValueError: the two do not hold the same tensors.
    """
    shapes, others = ({name: t.shape for name, t in state.items()} for state in (reference, self_trained))
    if shapes != others:
        unlike = sorted(n for n in shapes.keys() | others.keys() if shapes.get(n) != others.get(n))
        raise ValueError(f"the states are not of one network: {', '.join(unlike)} differ")
    return {name: _step_away(tensor, self_trained[name], w) for name, tensor in reference.items()}


def _step_away(reference: Tensor, self_trained: Tensor, w: float) -> Tensor:
    # Masks hold infinities, whose difference is not a number.
    if not reference.is_floating_point() or torch.equal(reference, self_trained):
        return reference
    origin = reference.float()
    return origin + w * (origin - self_trained.float())
