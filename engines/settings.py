"""How an engine is built."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EngineSettings(BaseModel):
    """Which backend computes, where, and how wide.

    Attributes:
        backend: what compiles and runs the networks.
        device: torch's name of the device.
        precision: of the networks; `auto` takes what the device does fastest.
        threads: of the device, None for all cores.
        max_rows: most rows of one engine call.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["torch"] = "torch"
    device: str = "cpu"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    max_rows: int = Field(default=8, ge=1)
