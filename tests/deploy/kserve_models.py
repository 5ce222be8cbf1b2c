"""Holds a manifest to the classes of KServe's own SDK; runs in whichever environment has the ``kserve`` package.

Argument: a file with one InferenceService or ServingRuntime. Ends with a line for each field that they do not know.
"""

import re
import sys
from pathlib import Path
from typing import Any

import kserve.models
import kubernetes.client
import yaml


def unknown(value: Any, kind: str, where: str) -> list[str]:
    """The fields below ``value`` that the class named ``kind`` has not."""
    if listed := re.fullmatch(r"list\[(.+)\]", kind):
        return [line for index, each in enumerate(value) for line in unknown(each, listed[1], f"{where}[{index}]")]
    model = getattr(kserve.models, kind, None) or getattr(kubernetes.client, kind, None)
    if model is None:  # a plain value, or a mapping with names of its own
        return []
    names = {outside: inside for inside, outside in model.attribute_map.items()}
    return [
        line
        for key, each in value.items()
        for line in (
            unknown(each, model.openapi_types[names[key]], f"{where}.{key}") if key in names else [f"{where}.{key}"]
        )
    ]


if __name__ == "__main__":
    document = yaml.safe_load(Path(sys.argv[1]).read_text())
    prefix = document["apiVersion"].rpartition("/")[2].capitalize()
    sys.exit("\n".join(unknown(document, prefix + document["kind"], document["kind"])) or None)
