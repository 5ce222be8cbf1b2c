"""Makes docs/typescript/anomaly.d.ts, the types of the API: ``make types`` (needs Node.js).

Runs openapi-typescript (https://openapi-ts.dev) on the OpenAPI document of the service.
"""

import asyncio
import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import httpx

GENERATOR: Final = ("openapi-typescript@7.13.0", "typescript@5.9.3")
TYPES: Final = Path(__file__).resolve().parent / "anomaly.d.ts"


def typed(document: Any) -> Any:
    """What of an OpenAPI document the types come from: no examples, and no version of the service."""
    if isinstance(document, list):
        return [typed(each) for each in document]
    if not isinstance(document, dict):
        return document
    kept = {name: typed(value) for name, value in document.items() if name not in {"example", "examples"}}
    return {**kept, "info": {"title": "anomaly-service", "version": ""}} if "openapi" in document else kept


def digest(document: Any) -> str:
    """SHA-256 of what the types come from."""
    return hashlib.sha256(json.dumps(typed(document), sort_keys=True).encode()).hexdigest()


async def openapi_document() -> Any:
    """The OpenAPI document, without a model or a port."""
    from app.api.application import create_app  # noqa: PLC0415  the test of the digest needs only that
    from app.api.settings import read_settings  # noqa: PLC0415

    transport = httpx.ASGITransport(create_app(read_settings([])))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return (await client.get("/openapi.json")).json()


def main() -> None:
    """Replaces the file."""
    document = asyncio.run(openapi_document())
    packages = [word for package in GENERATOR for word in ("--package", package)]
    with tempfile.TemporaryDirectory() as folder:
        source, types = Path(folder) / "openapi.json", Path(folder) / "types.d.ts"
        source.write_text(json.dumps(typed(document)))
        subprocess.run(  # noqa: S603  fixed words
            ["npx", "--yes", *packages, "openapi-typescript", source, "--output", types],  # noqa: S607  any Node.js
            check=True,
        )
        TYPES.write_text(f"// OpenAPI document: sha256 {digest(document)}\n{types.read_text()}")


if __name__ == "__main__":
    main()
