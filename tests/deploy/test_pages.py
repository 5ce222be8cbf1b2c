"""What the pages of deploy/ refer to is there."""

import re
from pathlib import Path

import pytest

from tests.support import ROOT

PAGES = sorted((ROOT / "deploy").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"(?:tests|deploy|benchmarks)/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"-m ((?:benchmarks|app)[.\w]*)", text):
        file = ROOT.joinpath(*module.split("."))
        assert file.with_suffix(".py").exists() or file.is_dir(), module
