"""How much memory networks hold."""

from __future__ import annotations

from itertools import chain

from torch import nn


def weights_nbytes(*modules: nn.Module) -> int:
    """Return the bytes of all parameters and buffers; what modules share counts once."""
    tensors = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules)
    return sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in tensors}.values())
