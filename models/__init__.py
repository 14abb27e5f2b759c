"""Networks, checkpoint formats, the catalogue and the registry of models."""

from models.networks import build

__all__ = ["build"]
