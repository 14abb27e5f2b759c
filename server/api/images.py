"""Routes that make images."""

from __future__ import annotations

import base64
from contextlib import ExitStack

from fastapi import APIRouter, Request
from starlette.responses import Response

from server import errors
from server.access.caller import Caller
from server.api.body import read_json
from server.api.disconnect import unless_disconnected
from server.api.event_stream import EventStream
from server.api.negotiation import Form, answer_form
from server.api.openapi import GENERATE_BODY, GENERATE_OK
from server.api.parts import Parts
from server.api.problems import GENERATION_ERRORS, document
from server.api.schemas import GeneratedImage, GenerateRequest, GenerateResponse
from server.image_format import ImageFormat
from server.request_id import REQUEST_ID
from server.service import Generated
from server.streaming.stream import Stream

router = APIRouter()


@router.post(
    "/generate",
    tags=["images"],
    openapi_extra=GENERATE_BODY,
    response_model=GenerateResponse,
    responses={
        200: GENERATE_OK,
        **document(*GENERATION_ERRORS, errors.NotAcceptableError),
    },
)
async def generate(request: Request) -> Response:
    """Make images of a class."""
    parts: Parts = request.app.state.parts
    settings = parts.settings
    caller: Caller = request.state.caller
    with ExitStack() as held:
        held.enter_context(parts.metrics.observe_request())
        wanted = await read_json(
            request, GenerateRequest, limit=settings.body_bytes, timeout_s=settings.body_timeout_s
        )
        form = _form(request, wanted)
        held.enter_context(parts.quotas.hold(caller, wanted.n))
        if form is Form.EVENTS:
            return await _stream(request, parts, caller, wanted, held.pop_all())
        image_format = form if isinstance(form, ImageFormat) else wanted.format or ImageFormat.PNG
        work = parts.running.run(caller, parts.service.generate(wanted, image_format))
        generated = await unless_disconnected(request, work)
    return _json_answer(generated) if form is Form.JSON else _bare_answer(generated)


def _form(request: Request, wanted: GenerateRequest) -> Form | ImageFormat:
    form = answer_form(request.headers.get("accept", ""), wanted.format, wanted.n, wanted.stream)
    if form is not Form.EVENTS and "preview" in wanted.model_fields_set:
        raise errors.InvalidInputError(
            [errors.FieldError("preview", 'previews come with streams alone; add "stream": true')]
        )
    return form


async def _stream(
    request: Request, parts: Parts, caller: Caller, wanted: GenerateRequest, held: ExitStack
) -> Response:
    """Answer with events; `held` is left when the images are made."""
    stream = Stream(request, wanted.preview, encoder=parts.encoder, metrics=parts.metrics)
    work = parts.running.run(
        caller, parts.service.generate(wanted, wanted.format or ImageFormat.PNG, stream.feed)
    )
    try:
        await unless_disconnected(request, stream.start(work, held))
    except errors.ServeError:
        await stream.close()
        raise
    return EventStream(stream, stream.events(), parts.settings)


def _json_answer(generated: Generated) -> Response:
    answer = GenerateResponse(
        images=[
            GeneratedImage(
                seed=picture.seed,
                image=base64.b64encode(picture.data).decode(),
                width=picture.width,
                height=picture.height,
            )
            for picture in generated.pictures
        ],
        format=generated.format,
        model=generated.model,
        version=generated.version,
        parameters=generated.parameters,
        timings=generated.timings,
        request_id=REQUEST_ID.get(),
    )
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _bare_answer(generated: Generated) -> Response:
    picture, timings = generated.pictures[0], generated.timings
    headers = {
        "X-Seed": str(picture.seed),
        "X-Model": generated.model,
        "X-Model-Version": str(generated.version),
        "X-Parameters": generated.parameters.model_dump_json(exclude_none=True, ensure_ascii=True),
        "X-Queue-Ms": str(timings.queue_ms),
        "X-Compute-Ms": str(timings.compute_ms),
        "X-Encode-Ms": str(timings.encode_ms),
        "X-Total-Ms": str(timings.total_ms),
    }
    return Response(picture.data, media_type=generated.format.media_type, headers=headers)
