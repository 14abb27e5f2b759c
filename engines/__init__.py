"""Samplers, decoders and the backends that run them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engines.settings import EngineSettings

if TYPE_CHECKING:
    from engines.loading import load, load_sampler

__all__ = ["EngineSettings", "load", "load_sampler"]


# Torch comes with the first engine, so that a server starts to answer before it is there.
def __getattr__(name: str) -> Any:
    if name in ("load", "load_sampler"):
        from engines import loading  # noqa: PLC0415

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
