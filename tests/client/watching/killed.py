"""``watch``, killed at the step that the first argument names."""

import errno
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from app.client.watching import command
from app.client.watching.archive import Archive
from app.client.watching.journal import Entry, Journal

STEPS = ("answered", "half a line", "line", "half a copy", "copied", "moved")


def kill(*_: object, **__: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def write_half(self: Journal, entry: Entry) -> None:
    with self.path.open("ab") as file:
        file.write(entry.to_line()[:40])
    kill()


def half_a_copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes()[:50])
    kill()


def then_kill(function: Any) -> Any:
    def run(*arguments: Any) -> None:
        function(*arguments)
        kill()

    return run


def other_file_system(self: Path, target: Path) -> Path:
    if "archive" in str(self):
        return original_rename(self, target)
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def kill_unless_part(self: Path, **options: bool) -> None:
    if not self.name.endswith(".part"):
        kill()
    original_unlink(self, **options)


original_rename, original_unlink = Path.rename, Path.unlink

if __name__ == "__main__":
    step = sys.argv[1]
    if step in {"half a copy", "copied"}:
        patch.object(Path, "rename", other_file_system).start()
    patches: dict[str, Any] = {
        "answered": patch.object(Journal, "append", kill),
        "half a line": patch.object(Journal, "append", write_half),
        "line": patch.object(Journal, "append", then_kill(Journal.append)),
        "half a copy": patch.object(shutil, "copy2", half_a_copy),
        "copied": patch.object(Path, "unlink", kill_unless_part),
        "moved": patch.object(Archive, "put", then_kill(Archive.put)),
    }
    patches[step].start()
    sys.exit(command.main(sys.argv[2:]))
