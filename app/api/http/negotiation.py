"""Content negotiation by the ``Accept`` header (RFC 9110, section 12.5.1)."""

from functools import lru_cache

from app.api.errors import NotAcceptable


@lru_cache(maxsize=256)  # most requests repeat one of a few headers
def best_type(accept: str | None, offers: tuple[str, ...]) -> str:
    """Selects the media type with the highest quality; of several equal ones, the first.

    Args:
        accept: the Accept header. None or a blank one accepts any type.
        offers: the media types that a route can produce, the default first.

    Raises:
        NotAcceptable: the client accepts none of them.
    """
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [_media_range(part) for part in accept.split(",") if part.strip()]
    qualities = [_quality(offer, ranges) for offer in offers]
    best = max(qualities, default=0)
    if best <= 0:
        raise NotAcceptable(f"the response is available as {' or '.join(offers)}, not as {accept[:200]}")
    return offers[qualities.index(best)]


def _media_range(part: str) -> tuple[str, float]:
    name, *parameters = (each.strip().lower() for each in part.split(";"))
    quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
    try:
        return name, float(quality)
    except ValueError:
        return name, 0.0


def _quality(offer: str, ranges: list[tuple[str, float]]) -> float:
    """The quality of the most specific media range that matches the offer, 0 if none does."""
    for pattern in (offer, offer.split("/", maxsplit=1)[0] + "/*", "*/*"):
        for name, quality in ranges:
            if name == pattern:
                return quality
    return 0.0
