"""Samplers, decoders and the backends that run them."""

from engines.loading import load, load_sampler
from engines.settings import EngineSettings

__all__ = ["EngineSettings", "load", "load_sampler"]
