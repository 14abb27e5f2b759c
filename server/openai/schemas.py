"""What goes over the wire under `/v1`, in the shape of OpenAI's API (https://platform.openai.com/docs/api-reference/images)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.api.schemas import Parameters, Sampling, Timings, Whole
from server.image_format import ImageFormat
from server.scheduling.priority import Priority

MAX_PARTIAL_IMAGES = 3


class ImagesRequest(Sampling):
    """Images of a class. Beside OpenAI's fields it has ours, which clients send as `extra_body`."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={"examples": [{"prompt": "dog face", "n": 2}]},
    )

    prompt: str = Field(
        max_length=256,
        description="A class by name, or its number in digits; empty for a model without classes.",
    )
    model: str | None = Field(
        default=None, max_length=256, description="NAME or NAME/VERSION from GET /v1/models; else the first."
    )
    n: Whole | None = Field(default=None, ge=1, description="How many images; 1 when left out.")
    size: str | None = Field(
        default=None,
        max_length=64,
        description="`auto`, or the model's own as WIDTHxHEIGHT: a model has one size.",
    )
    response_format: Literal["b64_json", "url"] | None = Field(
        default=None, description="b64_json alone: images are not kept, so they have no URL."
    )
    output_format: Annotated[ImageFormat | None, Field(strict=False)] = Field(
        default=None, description="png (the default), webp (lossless) or jpeg."
    )
    stream: bool | None = Field(default=None, description="Answer with server-sent events.")
    partial_images: Whole | None = Field(
        default=None, ge=0, le=MAX_PARTIAL_IMAGES, description="Most previews of an image; with stream alone."
    )
    background: Literal["auto", "opaque"] | None = Field(default=None, description="Images are opaque.")
    quality: Literal["auto", "standard"] | None = Field(
        default=None, description="Set by `steps` and `cfg` instead."
    )
    moderation: Literal["auto", "low"] | None = Field(
        default=None, description="Without effect: a class is no text to be moderated."
    )
    user: str | None = Field(default=None, max_length=256, description="Without effect.")
    safety_identifier: str | None = Field(default=None, max_length=256, description="Without effect.")
    seed: Whole | None = Field(
        default=None, ge=0, lt=2**63, description="Of the first image; image i has seed + i. Else drawn."
    )
    priority: Annotated[Priority, Field(strict=False)] = Field(
        default=Priority.INTERACTIVE, description="batch takes what interactive requests leave, at no hurry."
    )
    deadline_ms: Whole | None = Field(
        default=None, ge=1, description="Give up after so many milliseconds, up to the server's limit."
    )


class ImageData(BaseModel):
    """One image."""

    b64_json: str = Field(description="The image file in base64.")
    revised_prompt: str | None = Field(default=None, description="The class that was made, by its full name.")
    seed: int = Field(description="Gives this image again, with n 1 and everything else equal.")


class ImagesResponse(BaseModel):
    """Images and, beyond OpenAI's fields, how they were made."""

    created: int = Field(description="Seconds since the epoch.")
    data: list[ImageData]
    background: Literal["opaque"] = "opaque"
    output_format: ImageFormat
    size: str = Field(description="WIDTHxHEIGHT in pixels.")
    model: str
    version: int = Field(description="Number in the registry; 0 for a model outside one.")
    parameters: Parameters
    timings: Timings


class _StreamedImage(BaseModel):
    b64_json: str = Field(description="The image file in base64.")
    created_at: int = Field(description="Seconds since the epoch.")
    background: Literal["opaque"] = "opaque"
    output_format: ImageFormat
    quality: Literal["auto"] = "auto"
    size: str = Field(description="WIDTHxHEIGHT in pixels; a preview may be smaller than its image.")
    index: int = Field(description="Which of the request's images, from 0.")
    seed: int


class PartialImage(_StreamedImage):
    """`image_generation.partial_image`: what an image looks like so far."""

    type: Literal["image_generation.partial_image"] = "image_generation.partial_image"
    partial_image_index: int = Field(description="Which preview of its image, from 0.")


class TokenDetails(BaseModel):
    """Tokens of a prompt by kind."""

    text_tokens: int = 0
    image_tokens: int = 0


class Usage(BaseModel):
    """What OpenAI bills by. A class is no tokens, so all are 0; clients expect the fields."""

    input_tokens: int = 0
    input_tokens_details: TokenDetails = TokenDetails()
    output_tokens: int = 0
    total_tokens: int = 0


class CompletedImage(_StreamedImage):
    """`image_generation.completed`: an image is finished; the first to be finished comes first."""

    type: Literal["image_generation.completed"] = "image_generation.completed"
    usage: Usage = Usage()


class ModelCard(BaseModel):
    """A model, or one version of it."""

    id: str = Field(description="NAME, the version that is the default now, or NAME/VERSION.")
    object: Literal["model"] = "model"
    created: int = Field(description="Seconds since the epoch at which the version was published, or 0.")
    owned_by: str = Field(description="The model's family.")


class ModelCards(BaseModel):
    """Every served model and version."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
