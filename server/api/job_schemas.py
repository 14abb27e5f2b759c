"""What goes over the wire about jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from server.api.schemas import Parameters, Sampling, Whole
from server.jobs.job import JobState
from server.jobs.plan import ResultFormat

OneClass = Annotated[Whole, Field(ge=0)] | Annotated[str, Field(max_length=256)]
ClassList = Annotated[list[OneClass], Field(min_length=1, max_length=1000)]


def _listed(value: object) -> object:
    return [value] if isinstance(value, int | str) else value


class JobRequest(Sampling):
    """A big batch of images. A field that is left out takes the model's default."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={"examples": [{"n": 50_000, "classes": "all", "seed": 0, "format": "npz"}]},
    )

    n: Whole = Field(ge=1, description="How many images, up to the server's limit.")
    classes: Annotated[ClassList, BeforeValidator(_listed, json_schema_input_type=OneClass | ClassList)] = (
        Field(
            default=["all"],
            description=(
                "A class by number or name, a list of them, or `all`; image i is of class i modulo their "
                "number. A model without classes takes `all`."
            ),
        )
    )
    seed: Whole | None = Field(
        default=None,
        ge=0,
        lt=2**63,
        description="Seed of image 0; image i has seed + i. Drawn, and told, when left out.",
    )
    format: Annotated[ResultFormat, Field(strict=False)] = Field(
        default=ResultFormat.NPZ,
        description=(
            "npz: `arr_0` (N, H, W, 3) uint8, `labels` and `seeds` (N,). zip: PNG files whose names tell "
            "place, class and seed, and `dataset.json` with the labels, as EDM's tools read it."
        ),
    )


class JobInfo(BaseModel):
    """A job and how far it is; what there is not, or not yet, is absent."""

    id: str
    state: JobState
    reason: str | None = Field(default=None, description="Why it failed, or what it waits for.")
    done: int = Field(description="Images that are made and on the disk.")
    total: int
    images_per_second: float | None = Field(default=None, description="Since it last began to run.")
    seconds_left: float | None = Field(default=None, description="Until it is done, as fast as it was.")
    model: str
    version: int = Field(description="Pinned when the job was created.")
    parameters: Parameters = Field(description="Of every image, beside its class.")
    classes: Literal["all"] | list[int] | None = Field(
        default=None, description="In turn: image i is of class i modulo their number."
    )
    seed: int = Field(description="Of image 0; image i has seed + i.")
    format: ResultFormat
    created: datetime
    finished: datetime | None = None
    result: str | None = Field(default=None, description="Path of the result, once there is one.")
    result_bytes: int | None = None


class JobList(BaseModel):
    """All jobs of whoever asks, newest first."""

    jobs: list[JobInfo]
