"""What is installed is pinned by version and SHA-256, and no permitted version has a known vulnerability.

The advisories are those that were known when a lowest version was last raised; ``make audit`` asks for new ones.
"""

import re
import subprocess
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()

# Package → first version without a known vulnerability that could matter here, and the last advisory.
FIXED = {
    "aiohttp": ("3.13.3", "CVE-2025-69223"),
    "brotli": ("1.2.0", "CVE-2025-6176"),
    "cryptography": ("46.0.7", "CVE-2026-39892"),
    "filelock": ("3.20.3", "CVE-2026-22701"),
    "fonttools": ("4.60.2", "CVE-2025-66034"),
    "h11": ("0.16.0", "CVE-2025-43859"),
    "jinja2": ("3.1.6", "CVE-2025-27516"),
    "orjson": ("3.11.6", "CVE-2025-67221"),
    "pillow": ("13.0.0", "GHSA-8g5g-8vmr-9782"),  # a JPEG file overflows a buffer of the decoder
    "pillow-heif": ("1.3.0", "CVE-2026-28231"),
    "protobuf": ("6.33.5", "CVE-2026-0994"),
    "pyarrow": ("23.0.1", "CVE-2026-25087"),
    "pygments": ("2.20.0", "CVE-2026-4539"),
    "pytest": ("9.0.3", "CVE-2025-71176"),
    "python-dotenv": ("1.2.2", "CVE-2026-28684"),
    "python-multipart": ("0.0.31", "GHSA-v9pg-7xvm-68hf"),
    "ray": ("2.54.0", "CVE-2026-27482"),
    "requests": ("2.33.0", "CVE-2026-25645"),
    "setuptools": ("78.1.1", "CVE-2025-47273"),
    "starlette": ("1.3.1", "CVE-2026-54283"),
    "torch": ("2.13.0", "CVE-2025-3000"),
    "urllib3": ("2.6.3", "CVE-2026-21441"),
    "werkzeug": ("3.1.4", "CVE-2025-66221"),
}


def _requirements() -> Iterator[Requirement]:
    project = PROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values(), PROJECT["build-system"]["requires"]]
    for listed in lists:
        yield from map(Requirement, listed)


def _locked() -> dict[str, list[str]]:
    """``name==version`` → SHA-256 of its files."""
    entries = re.findall(r"^(\S+==\S+)[^\n]*((?:\n    --hash=\S+ ?\\?)*)", LOCK, re.MULTILINE)
    return {entry: re.findall(r"--hash=sha256:([0-9a-f]{64})", hashes) for entry, hashes in entries}


@pytest.mark.parametrize("requirement", [each for each in _requirements() if each.name in FIXED], ids=str)
def test_lowest_version_has_no_known_vulnerability(requirement: Requirement) -> None:
    fixed, advisory = FIXED[requirement.name]
    lowest = [Version(each.version) for each in requirement.specifier if each.operator == ">="]
    assert lowest, f"{requirement} has no lowest version"
    assert max(lowest) >= Version(fixed), f"{requirement} permits versions with {advisory}"


def test_locked_versions_have_no_known_vulnerability() -> None:
    versions = [entry.partition("==")[::2] for entry in _locked()]
    vulnerable = [name for name, version in versions if name in FIXED and Version(version) < Version(FIXED[name][0])]
    assert vulnerable == []
    assert FIXED.keys() <= {name for name, _ in versions}


def test_every_dependency_is_locked_with_hashes() -> None:
    locked = _locked()
    assert len(locked) > 100
    assert [entry for entry, hashes in locked.items() if not hashes] == []
    names = {entry.partition("==")[0] for entry in locked}
    assert {each.name for each in _requirements()} <= names


def test_the_lock_names_no_host() -> None:
    assert "://" not in LOCK
    assert "--index" not in LOCK


@pytest.mark.parametrize("text", [MAKEFILE, DOCKERFILE], ids=["Makefile", "Dockerfile"])
def test_only_builds_of_torch_from_another_index_are_not_compared(text: str) -> None:
    """The command that prepares the constraints for that index removes the hashes of these packages and no others."""
    (program,) = re.findall(r"awk '([^']+)'", text)
    program = program.replace("$$", "$")
    done = subprocess.run(["awk", program, ROOT / "requirements.lock"], capture_output=True, text=True, check=True)
    kept = done.stdout.splitlines()
    removed = set(LOCK.splitlines()) - set(kept)
    torch = [line for line in kept if line.startswith("torch")]
    assert [re.fullmatch(r"torch(vision)?==[\d.]+( ;.*)?", line) is not None for line in torch] == [True, True]
    assert {line.strip().partition("=")[0] for line in removed if not line.startswith("torch")} == {"--hash"}
    hashes = {digest for entry, found in _locked().items() if entry.startswith("torch") for digest in found}
    assert set(re.findall(r"sha256:(\w+)", "\n".join(removed))) == hashes


def test_base_image_and_installers_are_pinned() -> None:
    images = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE))
    assert images - stages == {"$BASE_IMAGE"}
    assert re.search(r"^ARG BASE_IMAGE=\S+:\d+\.\d+-", DOCKERFILE, re.MULTILINE)
    (version,) = re.findall(r"^UV_VERSION := (\S+)$", MAKEFILE, re.MULTILINE)
    assert f"uv=={version} " in DOCKERFILE
    assert "uv==$(UV_VERSION)" in MAKEFILE
    assert re.search(r"pip install pip==[\d.]+ uv==", DOCKERFILE)
