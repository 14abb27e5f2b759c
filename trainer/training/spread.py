"""Tensors that may be spread over processes, and the whole tensors that files hold.

Every function that gathers or spreads must be called by all processes, in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def local(tensor: Tensor) -> Tensor:
    """Return this process's part, which shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all parts as one tensor."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Return whole tensors on the CPU; nothing where `keep` is false, which saves memory."""
    gathered = {}
    for name, tensor in tensors.items():
        complete = whole(tensor.detach())
        if keep:
            gathered[name] = complete.cpu()
    return gathered


@torch.no_grad()
def fill(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy the whole tensors `values` into those of the same names, of which each may be spread."""
    for name, tensor in tensors.items():
        value = values[name].to(tensor.device)
        if isinstance(tensor, DTensor):
            value = distribute_tensor(value, tensor.device_mesh, tensor.placements)
        tensor.copy_(value)
