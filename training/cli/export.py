"""``python -m training export``: a version as a file for other runtimes."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli.parser import add_store_command, add_trusted_keys, store_of
from training.export import FORMATS, SUFFIXES, export

if TYPE_CHECKING:
    from app.command_line import Commands


def add_to(commands: "Commands") -> None:
    """Adds the command."""
    add_store_command(
        commands,
        "export",
        ["NAME", "[VERSION]"],
        summary="write a version as ONNX or OpenVINO",
        description="Writes a version, by default the current one, for programs without torch. Models of\n"
        "the recipe features cannot be exported. The model card is in the file's\n"
        "metadata. The file is written only if it gives the\n"
        "numbers of the model for its golden image.",
        run=run,
        add_options=_add_options,
        required_options=["--format onnx|openvino"],
    )


def _add_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--format", choices=FORMATS, required=True, help="openvino writes FILE.xml and FILE.bin")
    group.add_argument("--output", metavar="FILE", type=Path, help="default: NAME.onnx or NAME.xml in this folder")
    add_trusted_keys(group)


def run(options: argparse.Namespace) -> None:
    """Exports a version.

    Raises:
        InferenceError, TrainingError, OSError: as :func:`training.export.export`.
    """
    store = store_of(options)
    version = options.version or store.current(options.name)
    path = options.output or Path(options.name + SUFFIXES[options.format])
    difference = export(store, options.name, version, options.format, path)
    print(f"{options.name} {version} → {path}; differs from the model by at most {difference:.2g} (golden image)")
