"""Networks that reproduce the originals: EDM, EDM2, VAR and VAR's tokenizer."""

from models.networks.blocks import blocks_of
from models.networks.factory import build
from models.networks.mp_layers import force_unit_weights

__all__ = ["blocks_of", "build", "force_unit_weights"]
