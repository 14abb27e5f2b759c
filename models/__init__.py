"""Networks, checkpoint formats, the catalogue and the registry of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.networks import build

__all__ = ["build"]


# Torch takes seconds and 150 MB: whoever reads a version's model.json alone does without.
def __getattr__(name: str) -> Any:
    if name == "build":
        from models.networks import build  # noqa: PLC0415

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
