"""What goes over the wire when images are streamed: the data of each server-sent event."""

from __future__ import annotations

from pydantic import BaseModel, Field

from server.api.schemas import GeneratedImage, Parameters, Timings
from server.image_format import ImageFormat


class QueuedEvent(BaseModel):
    """`queued`, once: the request was accepted."""

    position: int = Field(description="Images of the model that waited when it came.")
    start_ms: float | None = Field(
        default=None,
        description="Predicted milliseconds until its last image is begun. Absent: nothing was measured yet.",
    )
    end_ms: float | None = Field(
        default=None, description="Predicted milliseconds until its last image is made; likewise."
    )
    request_id: str


class PreviewEvent(BaseModel):
    """`preview`: what an image looks like so far."""

    index: int = Field(description="Which of the request's images, from 0.")
    seed: int
    call: int = Field(description="Engine calls made.")
    calls: int = Field(description="Engine calls that the image needs.")
    image: str = Field(description="The preview's file in base64.")
    format: ImageFormat
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")


class ImageEvent(GeneratedImage):
    """`image`: an image is finished; the first to be finished comes first."""

    index: int = Field(description="Which of the request's images, from 0.")


class DoneEvent(BaseModel):
    """`done`, last: every image was sent."""

    format: ImageFormat
    model: str
    version: int = Field(description="Number in the registry; 0 for a model outside one.")
    parameters: Parameters
    timings: Timings
    request_id: str
