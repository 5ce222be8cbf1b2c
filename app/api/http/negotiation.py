"""Content negotiation (RFC 9110, 12.5.1) between the few types that a route offers."""

from functools import lru_cache

from app.api.errors import NotAcceptable


@lru_cache(maxsize=256)  # clients repeat themselves
def best_type(accept: str | None, offers: tuple[str, ...]) -> str:
    """The offer that the client likes most; among equals the first offered.

    Args:
        accept: the Accept header; None or blank accepts anything.
        offers: media types, the default first.

    Raises:
        NotAcceptable: none of the offers is acceptable.
    """
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [_media_range(part) for part in accept.split(",") if part.strip()]
    qualities = [_quality(offer, ranges) for offer in offers]
    best = max(qualities, default=0)
    if best <= 0:
        raise NotAcceptable(f"this answer comes as {' or '.join(offers)}, not as {accept[:200]}")
    return offers[qualities.index(best)]


def _media_range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
    try:
        return name, float(quality)
    except ValueError:
        return name, 0.0


def _quality(offer: str, ranges: list[tuple[str, float]]) -> float:
    """The quality of the most specific range that covers the offer."""
    for pattern in (offer, offer.split("/", maxsplit=1)[0] + "/*", "*/*"):
        for name, quality in ranges:
            if name == pattern:
                return quality
    return 0.0
