"""What the documents refer to exists: commands and their options, make targets, settings, scoring rules, links, files.

Commands that take minutes or need data are not run; ``test_readme.py`` runs the others.
"""

import importlib
import re
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from app.api.settings import PREFIX, Settings
from tests.documents import DOCUMENTS, OPERATIONS, README, SCORING, Document
from tests.support import ROOT
from training.model.scoring_rules import SCORING_RULES

_CALL = re.compile(r"python -m ((?:app|benchmarks|training)[\w.]*)(?: ([^#|&]*))?")
_SUBCOMMANDS = {
    "watch",
    "export",
    "mnist",
    "folder",
    "list",
    "show",
    "verify",
    "activate",
    "keygen",
    "places",
    "sign",
    "recalibrate",
}
_FORMER_NAMES = {"benchmarks.training"}  # that CHANGELOG.md mentions
_MAX_README_WORDS = 1500


def _calls() -> Iterator[tuple[str, str, frozenset[str]]]:
    """(module, its subcommand or an empty string, options) of every ``python -m`` in a document."""
    for document in DOCUMENTS:
        for snippet in document.snippets:
            for module, rest in _CALL.findall(snippet):
                words = rest.split()
                subcommand = words[0] if words and words[0] in _SUBCOMMANDS else ""
                if module not in _FORMER_NAMES:
                    yield module, subcommand, frozenset(re.findall(r"(?<!\S)--[\w-]+", rest))


def _commands() -> dict[tuple[str, str], frozenset[str]]:
    """The options that documents use, by (module, subcommand)."""
    commands: dict[tuple[str, str], frozenset[str]] = {}
    for module, subcommand, options in _calls():
        commands[module, subcommand] = commands.get((module, subcommand), frozenset()) | options
    return commands


COMMANDS = _commands()


def _by_name(documents: list[Document]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("document", documents, ids=str)


def test_the_documents_name_many_commands() -> None:
    assert len(COMMANDS) > 15


@pytest.mark.parametrize(("module", "subcommand"), sorted(COMMANDS), ids=[" ".join(each) for each in sorted(COMMANDS)])
def test_every_command_exists_with_its_options(
    module: str, subcommand: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    is_package = (ROOT.joinpath(*module.split(".")) / "__main__.py").exists()
    program = importlib.import_module(f"{module}.__main__" if is_package else module)
    monkeypatch.setattr("sys.argv", [module, *filter(None, [subcommand]), "--help"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code in {0, None}
    offered = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    assert offered >= COMMANDS[module, subcommand]


@pytest.mark.parametrize(
    "target",
    sorted(
        {target for each in DOCUMENTS for code in each.snippets for target in re.findall(r"\bmake ([a-z-]+)", code)}
    ),
)
def test_every_make_target_exists(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_compose_service_exists() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    named = [
        name
        for each in DOCUMENTS
        for code in each.snippets
        for name in re.findall(r"docker compose run --rm (\w+)", code)
    ]
    assert named
    assert set(named) <= set(services)


def test_the_settings_table_is_complete() -> None:
    rows = dict(re.findall(rf"^\| `{PREFIX}(\w+)` \| ([^|]+) \|", OPERATIONS.text, re.MULTILINE))
    assert {name.lower() for name in rows} == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert rows[name.upper()].strip("` ") in {str(field.default), "none"}, name


@_by_name(DOCUMENTS)
def test_every_setting_that_is_named_exists(document: Document) -> None:
    compose = {"UID", "GID"}  # of docker-compose.yml
    client = {"API_KEY", "CAMERA_URL", "WEBHOOK_SECRET", "MQTT_PASSWORD"}
    named = set(re.findall(rf"\b{PREFIX}([A-Z_]+[A-Z])\b", document.text))
    assert {name.lower() for name in named - compose - client} <= set(Settings.model_fields)


def test_the_table_of_scoring_rules_is_complete() -> None:
    table = SCORING.text.split("## Guarantees")[0]
    assert re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE) == list(SCORING_RULES)


def test_readme_is_short() -> None:
    assert len(README.text.split()) <= _MAX_README_WORDS


@_by_name(DOCUMENTS)
def test_every_link_leads_somewhere(document: Document) -> None:
    for link in document.links:
        file = document.linked_file(link)
        assert file.exists(), link
        anchor = link.partition("#")[2]
        if anchor:
            assert anchor in Document(file.relative_to(ROOT).as_posix()).anchors, link


@_by_name(DOCUMENTS)
def test_every_path_that_is_named_exists(document: Document) -> None:
    for path in re.findall(r"(?<![\w/.…-])(?:app|benchmarks|deploy|docs|tests|training)/[\w./@-]*\w", document.text):
        assert (ROOT / path).exists(), path


def test_every_document_is_linked_from_another() -> None:
    """Templates of GitHub are not; README is the start."""
    linked = {each.linked_file(link) for each in DOCUMENTS for link in each.links if not link.startswith("#")}
    for document in DOCUMENTS:
        assert document == README or document.name.startswith(".github/") or document.path in linked, document.name


@pytest.mark.parametrize("name", ["workflows/ci.yml", "ISSUE_TEMPLATE/bug_report.yml",
                                  "ISSUE_TEMPLATE/feature_request.yml", "ISSUE_TEMPLATE/config.yml"])  # fmt: skip
def test_github_files_are_valid_yaml(name: str) -> None:
    content = yaml.safe_load((ROOT / ".github" / name).read_text())
    assert isinstance(content, dict)
    if name == "workflows/ci.yml":
        assert content["permissions"] == {"contents": "read"}
        commands = [step.get("run") for job in content["jobs"].values() for step in job["steps"]]
        assert "bash .ci/run" in commands
        assert (ROOT / ".ci" / "run").exists()
    elif name != "ISSUE_TEMPLATE/config.yml":
        assert {"name", "description", "body"} <= set(content)
