"""``python -m app.client`` scores files and folders, ``… watch`` those that come. ``--help`` shows every option."""

import os
import sys

_CANNOT_RUN = 2  # Exit.CANNOT_RUN, which is out of reach when the import fails

try:
    from app.client.runs import cli
    from app.client.watching import command
    from app.client.watching.options import secret_source
    from app.client.watching.sources.address import URL_VARIABLE
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in {"httpx", "rich"}:
        raise
    print(f"error: {missing} is not installed; run: pip install httpx rich", file=sys.stderr)
    sys.exit(_CANNOT_RUN)


def main() -> int:
    """Runs the command line; returns the exit status."""
    words = sys.argv[1:]
    if words[:1] != ["watch"]:
        return cli.main(words)
    if sys.platform != "win32" and (address := secret_source(words[1:])):
        _start_again_without(address)
    return command.main(words[1:])


def _start_again_without(address: str) -> None:
    """Moves an address from the command line, which others can see, into the environment, which they cannot."""
    os.environ[URL_VARIABLE] = address
    words = [*sys.orig_argv]
    words.remove(address)
    os.execv(sys.executable, words)  # noqa: S606  itself


if __name__ == "__main__":
    sys.exit(main())
