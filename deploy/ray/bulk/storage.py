"""Storage of images and results: folders, buckets, and Parquet files that list paths."""

import os
import re
from collections.abc import Hashable, Iterator
from functools import cache
from itertools import islice
from typing import Final

import fsspec
import pyarrow as pa
import pyarrow.dataset
from pyarrow import fs

from app.files import search
from app.files.search import LOCAL_FILES, Entry, PassedOver
from bulk.errors import CannotRun

PARQUET_SUFFIX: Final = ".parquet"

_URL: Final = re.compile(r"(?P<head>(?P<scheme>[a-z][a-z0-9+.-]*)://[^/]*)/?(?P<rest>.*)", re.DOTALL)
_ARROW_SCHEMES: Final = {"s3", "gs", "gcs", "hdfs", "abfs", "abfss"}
_TEXT_TYPES: Final = {"string", "large_string", "string_view", "dictionary<values=string, indices=int32, ordered=0>"}
_PART_SIZE: Final = 65_536


def locate(path: str, base: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URL, and the path within it.

    Arrow and fsspec take credentials, regions and endpoints from the environment (``AWS_ENDPOINT_URL``, …),
    configuration files, or the role of the machine.

    Args:
        path: a local path, or a URL with a scheme that Arrow or an installed fsspec package supports. Names are used
            literally: ``%20`` or ``?`` have no special meaning.
        base: the folder that relative local paths start from.

    Raises:
        CannotRun: no installed package supports the scheme.
    """
    url = _URL.fullmatch(path)
    if url is None:
        return _local(), os.path.normpath(os.path.join(base, path))  # noqa: PTH118  faster; called for each image
    if url["scheme"] == "file":
        return _local(), "/" + url["rest"]
    if url["scheme"] in _ARROW_SCHEMES:
        file_system, root = _arrow_file_system(url["head"])
        return file_system, f"{root}/{url['rest']}".rstrip("/")
    return _fsspec_file_system(url["scheme"]), path.removeprefix(f"{url['scheme']}://")


def is_remote(path: str) -> bool:
    """Whether a path is read over a network."""
    return not path.startswith("file://") and _URL.fullmatch(path) is not None


class Bucket:
    """Folders of a file system over a network, for :mod:`app.files.search`.

    Args:
        file_system: what Arrow or fsspec supports.
    """

    def __init__(self, file_system: fs.FileSystem) -> None:
        self._file_system = file_system

    def entries(self, folder: str) -> Iterator[Entry]:
        """The entries of a folder."""
        for info in self._file_system.get_file_info(fs.FileSelector(folder)):
            yield Entry(info.base_name, info.path, "folder" if info.type == fs.FileType.Directory else "file")

    def identity(self, folder: str) -> Hashable:
        """The path: there are no links."""
        return folder


def find_images(source: str, path_column: str, passed_over: PassedOver) -> pa.ChunkedArray:
    """The paths or URLs of the images to score, each once, as in the results.

    Args:
        source: a folder or bucket, searched as :func:`app.files.search.find_images` does; or a Parquet file or folder,
            whose name ends in ``.parquet``, with one path per row.
        path_column: the column with the paths; null is ignored.
        passed_over: counts what is not looked at in a folder or bucket.

    Raises:
        CannotRun: the source does not exist, cannot be read, has no such column, or contains no images.
    """
    try:
        listed = source.rstrip("/").endswith(PARQUET_SUFFIX)
        paths = (
            _listed(source, path_column) if listed else pa.chunked_array(_below(source, passed_over), pa.large_string())
        )
    except (OSError, pa.ArrowInvalid, UnicodeError) as error:  # names that are not UTF-8
        raise CannotRun(f"{source} cannot be read: {first_line(error)}") from error
    if not len(paths):
        raise CannotRun("; ".join([f"{source} {'lists' if listed else 'contains'} no images", *passed_over.lines()]))
    return pa.chunked_array([paths.unique()])


def first_line(error: Exception) -> str:
    """The first line of an error message, without the details that libraries add below it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.splitlines() or [type(error).__name__])[0]


def _listed(source: str, column: str) -> pa.ChunkedArray:
    file_system, name = locate(source, os.getcwd())  # noqa: PTH109
    table = pyarrow.dataset.dataset(name, filesystem=file_system, format="parquet")
    if column not in table.schema.names:
        raise CannotRun(f"{source} has no column {column!r}, only {', '.join(table.schema.names)}; see --path-column")
    if (kind := str(table.schema.field(column).type)) not in _TEXT_TYPES:
        raise CannotRun(f"the column {column!r} of {source} is {kind}, not text")
    return table.to_table(columns=[column])[column].drop_null().cast(pa.large_string())


def _below(source: str, passed_over: PassedOver) -> Iterator[pa.Array]:
    """Images below a folder, in parts: the names in a large bucket must not all be Python objects at the same time."""
    file_system, root = locate(source, os.getcwd())  # noqa: PTH109
    url = _URL.fullmatch(source)
    scheme = f"{url['scheme']}://" if url and url["scheme"] != "file" else ""
    files = LOCAL_FILES if isinstance(file_system, fs.LocalFileSystem) else Bucket(file_system)
    paths = search.find_images(root, passed_over, files=files)
    while part := [scheme + path for path in islice(paths, _PART_SIZE)]:
        yield pa.array(part, pa.large_string())


@cache
def _local() -> fs.LocalFileSystem:
    return fs.LocalFileSystem()


@cache
def _arrow_file_system(head: str) -> tuple[fs.FileSystem, str]:
    file_system, root = fs.FileSystem.from_uri(head)
    return file_system, root.rstrip("/")


@cache
def _fsspec_file_system(scheme: str) -> fs.FileSystem:
    try:
        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme)))
    except (ValueError, ImportError) as error:
        raise CannotRun(f"{scheme}:// cannot be read: {first_line(error)}") from error
