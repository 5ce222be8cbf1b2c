"""Content negotiation by the Accept header."""

import pytest

from app.api.errors import NotAcceptable
from app.api.http.negotiation import best_type

OFFERS = ("application/json", "image/png")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/*", "image/png"),
        ("image/png;q=0.5, application/json;q=0.4", "image/png"),
        ("image/png;q=0.5, */*", "application/json"),
        ("application/json;q=0, */*;q=0.1", "image/png"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("image/png;q=broken, application/json;q=0.1", "application/json"),
    ],
)
def test_media_type_with_the_highest_quality_is_selected(accept: str | None, expected: str) -> None:
    assert best_type(accept, OFFERS) == expected


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg", "*/*;q=0", "nonsense", ";;,,;"])
def test_unacceptable_accept_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable, match=r"application/json or image/png"):
        best_type(accept, OFFERS)
