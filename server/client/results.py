"""What a client gives back beyond the server's own schemas: images as bytes and as pictures."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TypeAlias

import PIL.Image
from httpx_sse import ServerSentEvent
from pydantic import BaseModel

from server.api.events import DoneEvent, ImageEvent, PreviewEvent, QueuedEvent
from server.api.problem import Problem
from server.api.schemas import GeneratedImage, Parameters, Timings
from server.client.errors import refusal
from server.image_format import ImageFormat


class _File:
    """An image file in base64."""

    image: str

    @property
    def data(self) -> bytes:
        """The image file."""
        return base64.b64decode(self.image)

    def pil(self) -> PIL.Image.Image:
        """Return the picture, in Pillow's terms."""
        return PIL.Image.open(io.BytesIO(self.data))

    def save(self, path: Path | str) -> None:
        """Write the image file as it is, whatever the path's ending."""
        Path(path).write_bytes(self.data)


class Image(GeneratedImage, _File):
    """One image."""


class Generation(BaseModel):
    """Images and how they were made."""

    images: list[Image]
    format: ImageFormat
    model: str
    version: int
    parameters: Parameters
    timings: Timings
    request_id: str


class Queued(QueuedEvent):
    """The request was accepted."""


class Preview(PreviewEvent, _File):
    """What an image looks like so far."""


class StreamedImage(ImageEvent, _File):
    """An image is finished."""


class Done(DoneEvent):
    """Every image was told."""


Event: TypeAlias = Queued | Preview | StreamedImage | Done

EVENTS: dict[str, type[Queued | Preview | StreamedImage | Done]] = {
    "queued": Queued,
    "preview": Preview,
    "image": StreamedImage,
    "done": Done,
}


def event_of(message: ServerSentEvent) -> Event | None:
    """Return what a server-sent event tells; None for a kind that this client does not know.

    Raises:
        RefusedError: the event is an error.
    """
    if message.event == "error":
        raise refusal(Problem.model_validate_json(message.data))
    kind = EVENTS.get(message.event)
    return None if kind is None else kind.model_validate_json(message.data)
