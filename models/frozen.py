"""Data that is checked once and does not change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """A pydantic model whose instances cannot be changed and whose input may hold no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid")
