"""A stream's events in OpenAI's shape."""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from server.api.events import ImageEvent, PreviewEvent
from server.api.negotiation import Form
from server.api.openai_error import error_answer
from server.api.openapi import REFERENCE
from server.api.problem import Problem
from server.image_format import ImageFormat
from server.openai.schemas import CompletedImage, PartialImage
from server.streaming.stream import Event

EVENT_STREAM: dict[str, Any] = {
    Form.EVENTS.media_type: {
        "schema": {
            "description": (
                "With `stream`: previews and images as they come; an event `error` comes last if it fails."
            ),
            "oneOf": [
                {"$ref": REFERENCE.format(model=data.__name__), "description": inspect.getdoc(data)}
                for data in (PartialImage, CompletedImage)
            ],
        }
    }
}


async def told(
    events: AsyncIterator[Event], image_format: ImageFormat, clock: Callable[[], float] = time.time
) -> AsyncIterator[Event]:
    """Yield a stream's previews, images and error as OpenAI's API tells them.

    Args:
        events: of the stream.
        image_format: of its images.
        clock: seconds since the epoch.
    """
    previews: Counter[int] = Counter()
    async for name, data in events:
        match data:
            case PreviewEvent():
                partial = PartialImage(
                    b64_json=data.image,
                    created_at=int(clock()),
                    output_format=data.format,
                    size=f"{data.width}x{data.height}",
                    index=data.index,
                    seed=data.seed,
                    partial_image_index=previews[data.index],
                )
                previews[data.index] += 1
                yield partial.type, partial
            case ImageEvent():
                completed = CompletedImage(
                    b64_json=data.image,
                    created_at=int(clock()),
                    output_format=image_format,
                    size=f"{data.width}x{data.height}",
                    index=data.index,
                    seed=data.seed,
                )
                yield completed.type, completed
            case Problem():
                yield name, error_answer(data)
