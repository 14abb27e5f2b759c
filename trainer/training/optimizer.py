"""The optimizer and the gradient that it is given."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from trainer.training.config import OptimizerConfig
from trainer.training.spread import local, whole


def adam(network: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW for what trains in `network`; weight decay is for matrices and kernels alone."""
    # Scalars form a group of their own: they alone are never spread over processes, and one call cannot
    # update both kinds.
    groups: dict[int, list[nn.Parameter]] = defaultdict(list)
    for parameter in network.parameters():
        if parameter.requires_grad:
            groups[min(parameter.ndim, 2)].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": config.weight_decay if dimensions == 2 else 0.0}
            for dimensions, parameters in groups.items()
        ],
        betas=config.betas,
        eps=config.eps,
        foreach=True,
    )


@torch.no_grad()
def clip_gradient(optimizer: torch.optim.Optimizer, clip_norm: float | None) -> Tensor:
    """Scale the whole gradient down to the norm `clip_norm`; None leaves it as it is.

    Returns:
        Its norm before, a scalar: that of all processes together.
    """
    gradients = [
        [parameter.grad for parameter in group["params"] if parameter.grad is not None]
        for group in optimizer.param_groups
    ]
    norms = [whole(nn.utils.get_total_norm(group, foreach=True)) for group in gradients if group]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    if clip_norm is not None:
        share = (clip_norm / norm).clamp(max=1)
        torch._foreach_mul_([local(gradient) for group in gradients for gradient in group], share)
    return norm
