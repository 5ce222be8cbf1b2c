"""GET /, /docs, /static/…: what people meet in the browser, of our own files, asking nothing of other hosts."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

_FILES: Final = StaticFiles(directory=Path(__file__).parent.parent / "static")
_READING: Final = ["GET", "HEAD"]

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OWN_POLICY: Final = f"{_POLICY}; require-trusted-types-for 'script'"  # no text becomes markup; Swagger UI needs that
_HEADERS: Final = {
    "Accept-Ranges": "none",
    # Names do not change with contents: browsers keep the files and ask each time whether they are still good.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _OWN_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@router.api_route("/", methods=_READING)
async def page(request: Request) -> Response:
    """Draw or drop images, and see what the model makes of them."""
    return await _file(request, "index.html")


@router.api_route("/docs", methods=_READING)
async def docs(request: Request) -> Response:
    """The OpenAPI document, to read and to try."""
    response = await _file(request, "docs.html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@router.api_route("/static/{path:path}", methods=_READING)
async def static(request: Request, path: str) -> Response:
    """Scripts, styles and sample images."""
    return await _file(request, path)


async def _file(request: Request, path: str) -> Response:
    # Small files come whole: the library's refusals of ranges are no problem documents.
    request.scope["headers"] = [header for header in request.scope["headers"] if header[0] != b"range"]
    response = await _FILES.get_response(path, request.scope)
    response.headers.update(_HEADERS)
    return response
