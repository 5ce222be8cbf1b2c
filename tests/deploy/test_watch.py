"""The systemd units and the compose services of the watcher use options that it has."""

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.client.watching.options import CameraOptions, Options, parse_options
from app.client.watching.sources.address import URL_VARIABLE
from app.client.watching.webhook import SECRET_VARIABLE
from tests.support import ROOT

FOLDER, CAMERA = (ROOT / "deploy" / "watch" / f"anomaly-{name}.service" for name in ("watch", "camera@"))
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.fixture(autouse=True)
def _camera_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, "http://viewer:secret@camera/picture")


def started(unit_file: Path) -> tuple[list[str], configparser.SectionProxy]:
    """The words after ``watch``, and the section that has them."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep upper case
    unit.read(unit_file)
    python, *words = shlex.split(unit["Service"]["ExecStart"].replace("%i", "line-1"))
    assert python.endswith("/.venv/bin/python")
    assert words[:3] == ["-m", "app.client", "watch"]
    written = unit["Service"]["ReadWritePaths"]
    assert all(word.startswith(written) for word in words if word.startswith("/"))
    return words[3:], unit["Service"]


def in_compose(service: dict[str, Any]) -> list[str]:
    """The words after ``watch``, with the default values of variables."""
    return [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in service["command"]]


def check_camera(options: Options, name: str) -> None:
    assert isinstance(options.source, CameraOptions)
    assert (options.camera, options.source.every_s) == (name, 1)
    assert options.source.address.login == ("viewer", "secret")


def test_unit_starts_the_watcher(tmp_path: Path) -> None:
    words, _ = started(FOLDER)
    parse_options([str(tmp_path), *words[1:]])  # with a folder that exists here


def test_unit_of_a_camera_has_its_address_in_a_file() -> None:
    words, service = started(CAMERA)
    check_camera(parse_options(words), "line-1")
    assert "%i" in service["EnvironmentFile"]
    assert "://" not in CAMERA.read_text().split("[Service]")[1]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit_file", [FOLDER, CAMERA], ids=lambda file: file.name)
def test_systemd_accepts_the_unit(tmp_path: Path, unit_file: Path) -> None:
    unit = tmp_path / unit_file.name.replace("@", "@line")
    text = re.sub("ExecStart=.*", "ExecStart=/bin/true", unit_file.read_text())
    unit.write_text(text.replace("User=camera", "User=root"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert complaints == []


def test_compose_starts_the_watcher(tmp_path: Path) -> None:
    service = SERVICES["watch"]
    words = in_compose(service)
    parse_options([str(tmp_path), *words[1:]])
    targets = {volume.rsplit(":", 2)[1] for volume in service["volumes"]}
    assert targets == {word for word in words if word.startswith("/")} == {"/incoming", "/archive"}
    assert SECRET_VARIABLE in service["environment"]


def test_compose_starts_the_watcher_of_a_camera() -> None:
    service = SERVICES["camera"]
    options = parse_options(in_compose(service))
    check_camera(options, "camera")
    assert [volume.rsplit(":", 2)[1] for volume in service["volumes"]] == [str(options.archive)]
    assert {URL_VARIABLE, SECRET_VARIABLE} <= {*service["environment"]}
    same = ("build", "read_only", "cap_drop", "security_opt", "user", "init", "restart")
    assert [service[name] for name in same] == [SERVICES["watch"][name] for name in same]


def test_image_of_the_watcher_has_its_packages_and_not_torch() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert {"client", "watch", "mqtt", "camera"} <= extras.keys()
    assert "extras['client'] + extras['watch'] + extras['mqtt'] + extras['camera']" in dockerfile
    (entry,) = re.findall(r"FROM base AS watching\n.*?ENTRYPOINT (\[.*?\])", dockerfile, re.DOTALL)
    assert entry == '["python", "-m", "app.client", "watch"]'
