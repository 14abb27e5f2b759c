"""From a request in OpenAI's shape to one in ours."""

from __future__ import annotations

from typing import Any

from engines.base import Engine
from server.api.schemas import GenerateRequest, PreviewOptions, Sampling
from server.errors import FieldError, InvalidInputError
from server.hosting.catalogue import ServedModel
from server.image_format import ImageFormat
from server.openai.naming import split_id
from server.openai.schemas import ImagesRequest
from server.sampling import resolve

AUTO = "auto"


def model_of(wanted: ImagesRequest) -> tuple[str | None, int | None]:
    """Return name and version of the model that a request asks for; None: the default.

    Raises:
        InvalidInputError: it asks for two versions.
    """
    name, number = (None, None) if wanted.model is None else split_id(wanted.model)
    if None not in (wanted.version, number) and wanted.version != number:
        raise _invalid("version", f"{wanted.version} is not the version that {wanted.model!r} names")
    return name, wanted.version if number is None else number


def check(wanted: ImagesRequest) -> None:
    """Refuse what no model can do.

    Raises:
        InvalidInputError: it asks for URLs, or for previews without a stream.
    """
    if wanted.response_format == "url":
        raise _invalid(
            "response_format", "images are not kept here, so they have no URL: ask for b64_json, the default"
        )
    if wanted.partial_images is not None and not wanted.stream:
        raise _invalid("partial_images", 'partial images come with streams alone; add "stream": true')


def translate(wanted: ImagesRequest, model: ServedModel, engine: Engine[Any]) -> GenerateRequest:
    """Return what a checked request asks of a model whose engine is loaded.

    Raises:
        InvalidInputError: the model has no such class or size.
    """
    _check_size(wanted.size, model)
    settings = wanted.model_dump(include={*Sampling.model_fields} - {"model", "version"})
    name, version = model_of(wanted)
    request = GenerateRequest(
        **settings,
        model=name,
        version=version,
        class_id=_class_id(wanted.prompt, model),
        seed=wanted.seed,
        n=wanted.n or 1,
        format=wanted.output_format or ImageFormat.PNG,
        priority=wanted.priority,
        deadline_ms=wanted.deadline_ms,
        stream=bool(wanted.stream),
    )
    if not wanted.partial_images:
        return request.model_copy(update={"preview": PreviewOptions(limit=0)})
    return request.model_copy(update={"preview": _previews(wanted.partial_images, request, engine)})


def _class_id(prompt: str, model: ServedModel) -> int | None:
    if not prompt and model.version.spec.class_names:
        raise _invalid("prompt", "a class is needed, by name or by number")
    try:
        return model.class_id(None, prompt or None)
    except InvalidInputError as error:
        raise _invalid("prompt", "; ".join(fault.message for fault in error.errors)) from None


def _check_size(size: str | None, model: ServedModel) -> None:
    height, width = model.image_shape[:2]
    own = f"{width}x{height}"
    if size not in (None, AUTO, own):
        raise _invalid("size", f"{model.key.name} makes images of {own}; ask for that, or for {AUTO}")


def _previews(limit: int, request: GenerateRequest, engine: Engine[Any]) -> PreviewOptions:
    """Return previews that are spread over the whole making of an image, in its own format and size."""
    first = resolve(engine, request, class_id=request.class_id, seed=request.seed or 0)
    calls = sum(leg.calls for leg in engine.path(first))
    return PreviewOptions(
        limit=limit,
        interval_calls=max(1, calls // (limit + 1)),
        interval_ms=0,
        format=request.format or ImageFormat.PNG,
    )


def _invalid(field: str, message: str) -> InvalidInputError:
    return InvalidInputError([FieldError(field, message)])
