"""What goes over the wire: bodies of requests and answers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from server.image_format import ImageFormat
from server.scheduling.priority import Priority

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# To JSON Schema, and to JavaScript, 1.0 is an integer.
Whole = Annotated[int, BeforeValidator(_whole)]


class Sampling(BaseModel):
    """Which model makes images, and how. A field that is left out takes the model's default."""

    model: str | None = Field(default=None, description="A name from GET /models; else the server's first.")
    version: Whole | None = Field(
        default=None, ge=0, description="A version from GET /models; else the model's default one."
    )
    cfg: FiniteFloat = Field(default=1.0, description="Guidance scale; 1 is no guidance and costs nothing.")
    steps: Whole | None = Field(default=None, ge=1, description="Sampler steps (EDM, EDM2).")
    solver: str | None = Field(default=None, description="Sampler (EDM, EDM2).")
    temperature: FiniteFloat | None = Field(default=None, gt=0, description="Of token sampling (VAR).")
    top_k: Whole | None = Field(default=None, ge=0, description="Keep the k best tokens; 0 keeps all (VAR).")
    top_p: FiniteFloat | None = Field(default=None, ge=0, le=1, description="Nucleus; 0 keeps all (VAR).")
    var_raw_cfg: FiniteFloat | None = Field(
        default=None, description="The value that VAR's own code calls cfg, in place of `cfg` (VAR)."
    )


class PreviewOptions(BaseModel):
    """Which previews of each image are sent, and how. A client that reads slowly gets fewer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    limit: Whole | None = Field(default=None, ge=0, description="Most previews of an image; 0: none.")
    interval_calls: Whole = Field(
        default=1, ge=1, description="At least so many engine calls from one to the next."
    )
    interval_ms: Whole = Field(
        default=100, ge=0, description="At least so many milliseconds from one to the next."
    )
    size: Whole | None = Field(
        default=None, ge=1, description="Longest side in pixels; larger previews are scaled down."
    )
    format: Annotated[ImageFormat, Field(strict=False)] = Field(
        default=ImageFormat.JPEG, description="png, webp (lossless) or jpeg."
    )


class GenerateRequest(Sampling):
    """Images to be made. A field that is left out takes the model's default."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={"examples": [{"class_id": 207, "cfg": 1.0, "seed": 1}]},
    )

    class_id: Whole | None = Field(default=None, ge=0, description="Class by number; or give `class_name`.")
    class_name: str | None = Field(default=None, max_length=256, description="Class by name.")
    seed: Whole | None = Field(
        default=None,
        ge=0,
        lt=2**63,
        description="Seed of the first image; image i has seed + i. Drawn, and told, when left out.",
    )
    n: Whole = Field(default=1, ge=1, description="Images of the class, up to the server's limit.")
    format: Annotated[ImageFormat | None, Field(strict=False)] = Field(
        default=None, description="png (the default), webp (lossless) or jpeg."
    )
    priority: Annotated[Priority, Field(strict=False)] = Field(
        default=Priority.INTERACTIVE, description="batch takes what interactive requests leave, at no hurry."
    )
    deadline_ms: Whole | None = Field(
        default=None, ge=1, description="Give up after so many milliseconds, up to the server's limit."
    )
    stream: bool | None = Field(
        default=None,
        description="Answer with server-sent events, as `Accept: text/event-stream` does; false: never.",
    )
    preview: PreviewOptions = Field(
        default=PreviewOptions(), description="Previews between the events of a stream."
    )


class GeneratedImage(BaseModel):
    """One image."""

    seed: int = Field(description="Gives this image again, with n 1 and everything else equal.")
    image: str = Field(description="The image file in base64.")
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")


class Parameters(BaseModel):
    """What was made, every default filled in; fields that the model does not have are absent."""

    class_id: int | None = None
    class_name: str | None = None
    cfg: float | None = None
    steps: int | None = None
    solver: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    var_raw_cfg: float | None = None


class Timings(BaseModel):
    """Where the time went, in milliseconds; the first three follow each other and fill the total."""

    queue_ms: float = Field(description="From arrival to the first engine call.")
    compute_ms: float = Field(description="From there to the pixels of the last image.")
    encode_ms: float = Field(description="From there to the last image file.")
    total_ms: float = Field(description="From arrival to the last image file.")


class GenerateResponse(BaseModel):
    """Images and how they were made."""

    images: list[GeneratedImage]
    format: ImageFormat
    model: str
    version: int = Field(description="Number in the registry; 0 for a model outside one.")
    parameters: Parameters
    timings: Timings
    request_id: str


class ModelSummary(BaseModel):
    """A served version of a model."""

    name: str
    version: int = Field(description="Number in the registry; 0 for a model outside one.")
    family: str
    classes: int = Field(description="How many; 0 for an unconditional model.")
    ready: bool
    default: bool = Field(description="Whether requests that name no model get this one.")
    default_version: bool = Field(description="Whether requests that name the model alone get this version.")


class ModelList(BaseModel):
    """Every served version of every model."""

    models: list[ModelSummary]


class RequestLimits(BaseModel):
    """The most that one request may ask for."""

    n: int = Field(description="Images.")
    steps: int
    deadline_ms: int


class ModelDetail(ModelSummary):
    """A served version of a model and what its requests mean."""

    reason: str | None = Field(description="Why it is not ready.")
    guidance: str
    defaults: dict[str, Any] = Field(description="Sampler settings of requests that leave them out.")
    solvers: list[str] = Field(description="What `solver` may be; empty for a model that has none (VAR).")
    limits: RequestLimits
    licence: str
    lineage: dict[str, Any]


class ClassEntry(BaseModel):
    """One class."""

    class_id: int
    class_name: str


class ClassList(BaseModel):
    """The classes of a model."""

    model: str
    version: int
    classes: list[ClassEntry]


class Health(BaseModel):
    """The server's state."""

    status: str
    reasons: list[str] = Field(default=[], description="What is still to be done, or went wrong.")
