"""Pictures of a camera as files, in a folder from which they are scored and archived like those of a folder."""

import os
from datetime import UTC, datetime
from pathlib import Path

from app.client.watching.sources.camera import Picture
from app.files.writing import replaced_file

_NS_PER_S = 10**9


class Spool:
    """A folder that holds the picture in progress, also after a crash.

    Args:
        folder: is created.
        camera: its name, with which the names of the files begin.

    Raises:
        OSError: the folder cannot be created.
    """

    def __init__(self, folder: Path, camera: str) -> None:
        self._folder = folder
        self._camera = camera
        folder.mkdir(parents=True, exist_ok=True)
        for cut in folder.glob("*.part"):
            cut.unlink()

    def put(self, picture: Picture) -> Path:
        """Writes a picture; the time of modification of its file is that of the picture.

        Raises:
            OSError: it cannot be written; nothing is left of it.
        """
        seconds, rest = divmod(picture.time_ns, _NS_PER_S)
        time = datetime.fromtimestamp(seconds, UTC)
        path = self._folder / f"{self._camera}-{time:%Y%m%dT%H%M%S}.{rest // 10**6:03}Z{picture.suffix}"
        with replaced_file(path) as file:
            file.write(picture.content)
            file.flush()
            os.utime(file.name, ns=(picture.time_ns, picture.time_ns))
        return path
