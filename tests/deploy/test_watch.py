"""The systemd unit and the compose service of the watcher use options that it has."""

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from app.client.watching.options import parse_options
from app.client.watching.webhook import SECRET_VARIABLE
from tests.support import ROOT

UNIT = ROOT / "deploy" / "watch" / "anomaly-watch.service"
SERVICE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["watch"]


def parse(words: list[str], folder: Path) -> None:
    """Parses the words after ``watch``, with a folder that exists here."""
    parse_options([str(folder), *words[1:]])


def test_unit_starts_the_watcher(tmp_path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep upper case
    unit.read(UNIT)
    python, *words = shlex.split(unit["Service"]["ExecStart"])
    assert python.endswith("/.venv/bin/python")
    assert words[:3] == ["-m", "app.client", "watch"]
    parse(words[3:], tmp_path)
    written = unit["Service"]["ReadWritePaths"]
    assert all(word.startswith(written) for word in words if word.startswith("/"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub("ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text()).replace("User=camera", "User=root"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert complaints == []


def test_compose_starts_the_watcher(tmp_path: Path) -> None:
    words = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in SERVICE["command"]]
    parse(words, tmp_path)
    targets = {volume.rsplit(":", 2)[1] for volume in SERVICE["volumes"]}
    assert targets == {word for word in words if word.startswith("/")} == {"/incoming", "/archive"}
    assert SECRET_VARIABLE in SERVICE["environment"]


def test_image_of_the_watcher_has_its_packages_and_not_torch() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert {"client", "watch", "mqtt"} <= extras.keys()
    assert "extras['client'] + extras['watch'] + extras['mqtt']" in dockerfile
    (entry,) = re.findall(r"FROM base AS watching\n.*?ENTRYPOINT (\[.*?\])", dockerfile, re.DOTALL)
    assert entry == '["python", "-m", "app.client", "watch"]'
