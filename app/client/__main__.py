"""``python -m app.client`` scores files and folders, ``… watch`` those that come. ``--help`` shows every option."""

import sys

_CANNOT_RUN = 2  # Exit.CANNOT_RUN, which is out of reach when the import fails

try:
    from app.client.runs import cli
    from app.client.watching import command
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in {"httpx", "rich"}:
        raise
    print(f"error: {missing} is not installed; run: pip install httpx rich", file=sys.stderr)
    sys.exit(_CANNOT_RUN)


def main() -> int:
    """Runs the command line; returns the exit status."""
    words = sys.argv[1:]
    return command.main(words[1:]) if words[:1] == ["watch"] else cli.main(words)


if __name__ == "__main__":
    sys.exit(main())
