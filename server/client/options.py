"""What requests may say; what they leave out takes the model's default."""

from __future__ import annotations

from typing import Literal, TypedDict


class SamplingOptions(TypedDict, total=False):
    """Which model makes images, and how: the fields of `server.api.schemas.Sampling`."""

    model: str
    version: int
    cfg: float
    steps: int
    solver: str
    temperature: float
    top_k: int
    top_p: float
    var_raw_cfg: float


class GenerateOptions(SamplingOptions, total=False):
    """The fields of `server.api.schemas.GenerateRequest`."""

    n: int
    seed: int
    format: Literal["png", "webp", "jpeg"]
    priority: Literal["interactive", "batch"]
    deadline_ms: int


class PreviewFields(TypedDict, total=False):
    """The fields of `server.api.schemas.PreviewOptions`."""

    limit: int
    interval_calls: int
    interval_ms: int
    size: int
    format: Literal["png", "webp", "jpeg"]


class JobOptions(SamplingOptions, total=False):
    """The fields of `server.api.job_schemas.JobRequest`."""

    seed: int
    format: Literal["npz", "zip"]
