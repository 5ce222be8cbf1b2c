"""``python -m app.client`` scores files and folders. ``--help`` shows every option with its default."""

import sys

_CANNOT_RUN = 2

try:
    from app.client.command import main
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in {"httpx", "rich"}:
        raise
    print(f"error: {missing} is missing; install what the client needs: pip install httpx rich", file=sys.stderr)
    sys.exit(_CANNOT_RUN)

if __name__ == "__main__":
    sys.exit(main())
