"""GET /, /docs and /static/…: the web pages. They load nothing from other hosts."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

_FOLDER: Final = Path(__file__).parent.parent / "static"
_FILES: Final = StaticFiles(directory=_FOLDER)

# Browsers find a module only in the one that imports it: without these links (RFC 8288) they ask for the page's small
# modules in several rounds. Styles come first, because nothing is painted before them.
_PRELOAD: Final = ", ".join(
    [
        *(f'<static/{path.name}>; rel="preload"; as="style"' for path in sorted(_FOLDER.glob("*.css"))),
        *(
            f'<static/{path.relative_to(_FOLDER).as_posix()}>; rel="modulepreload"'
            for path in [_FOLDER / "page.js", *sorted((_FOLDER / "page").rglob("*.js"))]
        ),
    ]
)

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Text cannot become markup. Not for /docs, since Swagger UI builds markup from text.
_STRICT_POLICY: Final = f"{_POLICY}; require-trusted-types-for 'script'"
_HEADERS: Final = {
    "Accept-Ranges": "none",
    # File names do not change with the content, so browsers must revalidate.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _STRICT_POLICY,
    "Referrer-Policy": "no-referrer",
}


@router.get("/")
async def page(request: Request) -> Response:
    """The page for drawing or uploading images and viewing their results."""
    response = await _file(request, "index.html")
    response.headers["Link"] = _PRELOAD
    return response


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The API documentation in Swagger UI."""
    response = await _file(request, "docs.html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@router.get("/static/{path:path}")
async def static(request: Request, path: str) -> Response:
    """Scripts, styles and sample images of the pages."""
    return await _file(request, path)


async def _file(request: Request, path: str) -> Response:
    # Files are small. Range errors of the library would not be problem documents.
    request.scope["headers"] = [header for header in request.scope["headers"] if header[0] != b"range"]
    response = await _FILES.get_response(path, request.scope)
    response.headers.update(_HEADERS)
    return response
