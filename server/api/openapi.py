"""What /openapi.json says beyond what FastAPI sees: bodies that are read by hand, bare images, problems."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp

from server.api.direct import Direct, Endpoint
from server.api.events import DoneEvent, ImageEvent, PreviewEvent, QueuedEvent
from server.api.negotiation import Form
from server.api.problem import Problem
from server.api.schemas import GenerateRequest
from server.image_format import ImageFormat

REFERENCE = "#/components/schemas/{model}"

EXAMPLES = {
    "dog": {"summary": "A dog", "value": {"class_id": 207, "cfg": 1.0}},
    "repeatable": {"summary": "The same dog every time", "value": {"class_id": 207, "seed": 1}},
    "several": {"summary": "Four dogs, fewer steps", "value": {"class_id": 207, "n": 4, "steps": 8}},
    "webp": {
        "summary": "WebP, within two seconds",
        "value": {"class_id": 207, "format": "webp", "deadline_ms": 2000},
    },
    "stream": {
        "summary": "Previews on the way, three at most",
        "value": {"class_id": 207, "stream": True, "preview": {"limit": 3, "size": 64}},
    },
}


def json_body(schema: type[BaseModel], examples: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the `openapi_extra` of an operation that reads its JSON body by hand; see `Api`."""
    return {
        "requestBody": {
            "required": True,
            "description": (
                "JSON. Other labels that clients give to unlabelled data, such as the "
                "application/x-www-form-urlencoded of `curl -d`, are read as JSON too."
            ),
            "content": {
                "application/json": {"schema": {"$ref": REFERENCE.format(model=schema.__name__)}}
                | ({"examples": examples} if examples else {})
            },
        }
    }


GENERATE_BODY = json_body(GenerateRequest, EXAMPLES)

_HEADERS = {
    "X-Seed": ("The image's seed.", "integer"),
    "X-Model": ("Name of the model.", "string"),
    "X-Model-Version": ("Version of the model.", "integer"),
    "X-Parameters": ("What was made, as JSON.", "string"),
    "X-Queue-Ms": ("Milliseconds from arrival to the first engine call.", "number"),
    "X-Compute-Ms": ("Milliseconds from there to its pixels.", "number"),
    "X-Encode-Ms": ("Milliseconds from there to the file.", "number"),
    "X-Total-Ms": ("Milliseconds from arrival to the file.", "number"),
}

EVENTS: dict[str, type[BaseModel]] = {
    "queued": QueuedEvent,
    "preview": PreviewEvent,
    "image": ImageEvent,
    "done": DoneEvent,
    "error": Problem,
}


def _event(name: str, data: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of one kind of event, in the way of OpenAPI 3.2."""
    content = {"$ref": REFERENCE.format(model=data.__name__)}
    return {
        "type": "object",
        "description": inspect.getdoc(data),
        "properties": {
            "event": {"const": name},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": content},
        },
        "required": ["event", "data"],
    }


EVENT_STREAM: dict[str, Any] = {
    "schema": {
        "description": (
            "What each event is. `queued` comes first; `done`, or `error` when it fails midway, comes last. "
            "Comments between events are signs of life."
        ),
        "oneOf": [_event(name, data) for name, data in EVENTS.items()],
    }
}

GENERATE_OK: dict[str, Any] = {
    "description": (
        "The images as JSON; or, with `Accept: image/png` (or webp, jpeg) and n = 1, the bare image with "
        "everything else in the headers; or, with `stream`, server-sent events as things happen."
    ),
    "content": {
        image_format.media_type: {"schema": {"type": "string", "format": "binary"}}
        for image_format in ImageFormat
    }
    | {Form.EVENTS.media_type: EVENT_STREAM},
    "headers": {
        name: {"description": f"{text} With bare images only.", "schema": {"type": kind}}
        for name, (text, kind) in _HEADERS.items()
    },
}


class Api(FastAPI):
    """FastAPI whose OpenAPI document also holds the schemas that only references name: bodies, problems.

    Attributes:
        direct: routes that are answered past FastAPI, which only documents them; to be set before the start.
    """

    def __init__(
        self, *, bodies: Sequence[type[BaseModel]], answers: Sequence[type[BaseModel]], **options: Any
    ) -> None:
        """Know the schemas of what is read and what is written by hand; `options` are FastAPI's."""
        super().__init__(**options)
        self._bodies = bodies
        self._answers = answers
        self.direct: Mapping[tuple[str, str], Endpoint] = {}

    def build_middleware_stack(self) -> ASGIApp:
        """Return what every request goes through."""
        return Direct(super().build_middleware_stack(), self.direct, self.user_middleware)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        if self.openapi_schema is None:
            _, definitions = models_json_schema(
                [
                    *((body, "validation") for body in self._bodies),
                    *((event, "serialization") for event in (*EVENTS.values(), *self._answers)),
                ],
                ref_template=REFERENCE,
            )
            document = super().openapi()
            document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
            _forget_fastapis_errors(document)
            if not self.state.parts.door.guarded:
                _forget_keys(document)
        return super().openapi()


def _forget_keys(document: dict[str, Any]) -> None:
    document["components"].pop("securitySchemes", None)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)


def _forget_fastapis_errors(document: dict[str, Any]) -> None:
    """Leave out what FastAPI would answer to bad parameters: ours are problems, or OpenAI's errors."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
