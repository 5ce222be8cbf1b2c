"""docker-compose.yml passes every setting of the service on, and publishes it for this machine only."""

import re

import pytest
import yaml

from app.api.settings import PREFIX, Settings
from tests.support import ROOT

SET_IN_THE_IMAGE = {"host", "port", "model_store"}

API = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["api"]


def interpolate(text: str, variables: dict[str, str]) -> str:
    """Replaces ``${NAME:-default}`` as Compose does: by the default if the variable is missing or empty."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: variables.get(match[1]) or match[2], text)


def test_compose_passes_every_setting_to_the_service() -> None:
    passed = [variable.partition("=")[0] for variable in API["environment"]]
    assert sorted(passed) == sorted(PREFIX + name.upper() for name in Settings.model_fields.keys() - SET_IN_THE_IMAGE)


def test_compose_limits_the_memory_of_the_service() -> None:
    assert interpolate(API["mem_limit"], {}) == "2g"
    assert interpolate(API["mem_limit"], {"MEMORY": "6g"}) == "6g"


@pytest.mark.parametrize(
    ("variables", "published"),
    [
        ({}, "127.0.0.1:8000:8000"),
        ({"HOST": "", "PORT": ""}, "127.0.0.1:8000:8000"),
        ({"HOST": "0.0.0.0", "PORT": "80"}, "0.0.0.0:80:8000"),
    ],
)
def test_compose_publishes_on_this_machine_unless_host_says_otherwise(
    variables: dict[str, str], published: str
) -> None:
    assert [interpolate(port, variables) for port in API["ports"]] == [published]
