"""JSON or a bare image: what the Accept header asks for (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Iterator

from server.encoding import ImageFormat
from server.errors import NotAcceptableError

JSON = "application/json"


def bare_image(accept: str, wanted: ImageFormat | None, n: int) -> ImageFormat | None:
    """Return the format of the bare image that the client prefers, or None for the JSON answer.

    Of equally welcome forms the one that the header spells out wins, then JSON, then PNG, WebP, JPEG.

    Args:
        accept: the Accept header; empty means that anything will do.
        wanted: the `format` of the request body; a bare image can only have this one.
        n: number of images; more than one never fit a bare answer.

    Raises:
        NotAcceptableError: the client accepts neither JSON nor a bare image that there could be.
    """
    ranges = dict(_ranges(accept)) or {"*/*": 1.0}
    offers: list[ImageFormat | None] = [None]
    if n == 1:
        offers += [wanted] if wanted else list(ImageFormat)
    scored = [(_score(_media_type(offer), ranges), offer) for offer in offers]
    (quality, _), best = max(scored, key=lambda entry: entry[0])
    if quality == 0:
        could = ", ".join(_media_type(offer) for offer in offers)
        raise NotAcceptableError(f"for this request there is {could}; Accept allows only {accept}")
    return best


def _media_type(offer: ImageFormat | None) -> str:
    return JSON if offer is None else offer.media_type


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
