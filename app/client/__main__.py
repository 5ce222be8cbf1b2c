"""``python -m app.client`` scores files and folders. ``--help`` shows every option with its default."""

import sys

_CANNOT_RUN = 2  # Exit.CANNOT_RUN, which is out of reach when the import fails

try:
    from app.client.runs.cli import main
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in {"httpx", "rich"}:
        raise
    print(f"error: {missing} is not installed; run: pip install httpx rich", file=sys.stderr)
    sys.exit(_CANNOT_RUN)

if __name__ == "__main__":
    sys.exit(main())
