"""JSON, a bare image or events: what the Accept header asks for (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache

from server.errors import NotAcceptableError
from server.image_format import ImageFormat


class Form(StrEnum):
    """Forms of answer beside bare images, by their media types."""

    JSON = "application/json"
    EVENTS = "text/event-stream"

    @property
    def media_type(self) -> str:
        """The form's media type."""
        return self.value


@lru_cache(maxsize=256)
def answer_form(
    accept: str, wanted: ImageFormat | None, n: int, stream: bool | None = None
) -> Form | ImageFormat:
    """Return the form of answer that the client prefers; an image format means a bare image.

    Of equally welcome forms the one that the header spells out wins, then JSON, then PNG, WebP, JPEG, then
    events.

    Args:
        accept: the Accept header; empty means that anything will do.
        wanted: the `format` of the request body; a bare image can only have this one.
        n: number of images; more than one never fit a bare answer.
        stream: the `stream` of the request body; true is stronger than the header, false rules out events.

    Raises:
        NotAcceptableError: the client accepts no form that this answer could have.
    """
    if stream:
        return Form.EVENTS
    ranges = dict(_ranges(accept)) or {"*/*": 1.0}
    offers: list[Form | ImageFormat] = [Form.JSON]
    if n == 1:
        offers += [wanted] if wanted else list(ImageFormat)
    if stream is None:
        offers.append(Form.EVENTS)
    scored = [(_score(offer.media_type, ranges), offer) for offer in offers]
    (quality, _), best = max(scored, key=lambda entry: entry[0])
    if quality == 0:
        could = ", ".join(offer.media_type for offer in offers)
        raise NotAcceptableError(f"for this request there is {could}; Accept allows only {accept}")
    return best


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    """Yield the header's media ranges with their qualities."""
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if not media_range:
            continue
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                quality = _quality(value.strip())
        yield media_range, quality


def _quality(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0


def _score(media_type: str, ranges: dict[str, float]) -> tuple[float, int]:
    """Return quality and how exactly the header names the type: the most exact range decides."""
    candidates = ("*/*", media_type.partition("/")[0] + "/*", media_type)
    for exactness in (2, 1, 0):
        if candidates[exactness] in ranges:
            return ranges[candidates[exactness]], exactness
    return 0.0, 0
