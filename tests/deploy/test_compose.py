"""docker-compose.yml passes every setting of the service on."""

import yaml

from app.api.settings import PREFIX, Settings
from tests.support import ROOT

SET_IN_THE_IMAGE = {"host", "port", "model_store"}


def test_compose_passes_every_setting_to_the_service() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    passed = [variable.partition("=")[0] for variable in compose["services"]["api"]["environment"]]
    assert sorted(passed) == sorted(PREFIX + name.upper() for name in Settings.model_fields.keys() - SET_IN_THE_IMAGE)
