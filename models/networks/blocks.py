"""The repeated parts of a network, which hold nearly all of its weights and activations."""

from __future__ import annotations

from torch import nn

from models.networks.autoencoder import Level
from models.networks.edm2 import Block as Edm2Block
from models.networks.edm_layers import UNetBlock
from models.networks.var_block import Block as VarBlock


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Return the blocks of a network, in the order of its definition; none lies inside another."""
    kinds = (UNetBlock, Edm2Block, VarBlock, Level)
    return [module for module in network.modules() if isinstance(module, kinds)]
