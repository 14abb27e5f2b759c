"""Networks that reproduce the originals: EDM, EDM2, VAR and VAR's tokenizer."""

from models.networks.factory import build

__all__ = ["build"]
