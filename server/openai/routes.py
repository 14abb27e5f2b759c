"""Routes that OpenAI's clients call."""

from __future__ import annotations

import base64
import time
from contextlib import ExitStack

from fastapi import APIRouter, Request
from starlette.responses import Response

from server import errors
from server.access.caller import Caller
from server.api.body import read_json
from server.api.disconnect import unless_disconnected
from server.api.event_stream import EventStream
from server.api.openapi import json_body
from server.api.parts import AppParts, Parts
from server.api.problems import GENERATION_ERRORS, document_openai
from server.api.schemas import GenerateRequest
from server.image_format import ImageFormat
from server.openai.events import EVENT_STREAM, told
from server.openai.naming import card, cards, find_model
from server.openai.schemas import ImageData, ImagesRequest, ImagesResponse, ModelCard, ModelCards
from server.openai.translation import check, model_of, translate
from server.service import Generated
from server.streaming.stream import Stream

EXAMPLES = {
    "dog": {"summary": "A dog", "value": {"prompt": "dog face"}},
    "seeded": {"summary": "Two dogs, the same every time", "value": {"prompt": "207", "n": 2, "seed": 1}},
    "stream": {
        "summary": "Previews on the way",
        "value": {"prompt": "dog face", "stream": True, "partial_images": 2},
    },
}

router = APIRouter(
    prefix="/v1",
    tags=["openai"],
    responses=document_openai(errors.UnauthenticatedError, errors.ForbiddenError),
)


@router.post(
    "/images/generations",
    openapi_extra=json_body(ImagesRequest, EXAMPLES),
    response_model=ImagesResponse,
    responses={
        200: {"content": EVENT_STREAM},
        **document_openai(*GENERATION_ERRORS),
    },
)
async def generate_images(request: Request, parts: AppParts) -> Response:
    """Make images of the class that the prompt names."""
    settings = parts.settings
    caller: Caller = request.state.caller
    with ExitStack() as held:
        held.enter_context(parts.metrics.observe_request())
        asked = await read_json(
            request, ImagesRequest, limit=settings.body_bytes, timeout_s=settings.body_timeout_s
        )
        check(asked)
        held.enter_context(parts.quotas.hold(caller, asked.n or 1))
        wanted = await unless_disconnected(request, _prepare(asked, parts))
        if wanted.stream:
            return await _stream(request, parts, caller, wanted, held.pop_all())
        work = parts.running.run(caller, parts.service.generate(wanted, _format(wanted)))
        generated = await unless_disconnected(request, work)
    answer = _answer(generated, int(time.time()))
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


@router.get("/models")
async def list_models(parts: AppParts) -> ModelCards:
    """List every served model and version by the names that `model` takes."""
    return ModelCards(data=list(cards(parts.catalogue)))


@router.get(
    "/models/{model:path}",
    responses=document_openai(errors.InvalidInputError, errors.UnknownModelError, errors.UnknownVersionError),
)
async def show_model(model: str, parts: AppParts) -> ModelCard:
    """Show a model by one of its names."""
    return card(model, find_model(model, parts.catalogue))


async def _prepare(asked: ImagesRequest, parts: Parts) -> GenerateRequest:
    """Return what is asked for in our own terms; the model, which knows its size, is loaded first."""
    model = parts.catalogue.find(*model_of(asked))
    within_s = (asked.deadline_ms or parts.settings.deadline_ms) / 1000
    engine = await parts.lifecycle.engine(model, within_s)
    return translate(asked, model, engine)


async def _stream(
    request: Request, parts: Parts, caller: Caller, wanted: GenerateRequest, held: ExitStack
) -> Response:
    """Answer with events; `held` is left when the images are made."""
    stream = Stream(request, wanted.preview, encoder=parts.encoder, metrics=parts.metrics)
    image_format = _format(wanted)
    work = parts.running.run(caller, parts.service.generate(wanted, image_format, stream.feed))
    try:
        await unless_disconnected(request, stream.start(work, held))
    except errors.ServeError:
        await stream.close()
        raise
    return EventStream(stream, told(stream.events(), image_format), parts.settings)


def _format(wanted: GenerateRequest) -> ImageFormat:
    return wanted.format or ImageFormat.PNG


def _answer(generated: Generated, created: int) -> ImagesResponse:
    first = generated.pictures[0]
    return ImagesResponse(
        created=created,
        data=[
            ImageData(
                b64_json=base64.b64encode(picture.data).decode(),
                revised_prompt=generated.parameters.class_name,
                seed=picture.seed,
            )
            for picture in generated.pictures
        ],
        output_format=generated.format,
        size=f"{first.width}x{first.height}",
        model=generated.model,
        version=generated.version,
        parameters=generated.parameters,
        timings=generated.timings,
    )
