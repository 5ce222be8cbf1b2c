"""Compares a manifest with the classes of KServe's SDK; runs in an environment with the package ``kserve``.

The argument is a file with one InferenceService or ServingRuntime. Prints each unknown field on one line.
"""

import re
import sys
from pathlib import Path
from typing import Any

import kserve.models
import kubernetes.client
import yaml


def unknown_fields(value: Any, kind: str, where: str) -> list[str]:
    """The fields in ``value`` that the class named ``kind`` does not have."""
    if listed := re.fullmatch(r"list\[(.+)\]", kind):
        return [
            line for index, each in enumerate(value) for line in unknown_fields(each, listed[1], f"{where}[{index}]")
        ]
    model = getattr(kserve.models, kind, None) or getattr(kubernetes.client, kind, None)
    if model is None:  # a plain value, or a mapping with free keys
        return []
    names = {key: attribute for attribute, key in model.attribute_map.items()}
    return [
        line
        for key, each in value.items()
        for line in (
            unknown_fields(each, model.openapi_types[names[key]], f"{where}.{key}")
            if key in names
            else [f"{where}.{key}"]
        )
    ]


if __name__ == "__main__":
    document = yaml.safe_load(Path(sys.argv[1]).read_text())
    prefix = document["apiVersion"].rpartition("/")[2].capitalize()
    sys.exit("\n".join(unknown_fields(document, prefix + document["kind"], document["kind"])) or None)
