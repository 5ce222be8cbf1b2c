"""Parses the Markdown documents of the repository: code blocks, commands, links, headings."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tests.support import ROOT

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE_CODE = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(
    r"^(?:\w+=\S+ )*(?:make|docker|curl|\.venv/bin/python) (?:.*<<'END'\n(?:.*\n)*?END$|.*)", re.MULTILINE
)
_LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced code block; unlabelled ones hold commands."""

    language: str
    code: str


@dataclass(frozen=True)
class Document:
    """A Markdown file.

    Attributes:
        name: path relative to the repository.
    """

    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def path(self) -> Path:
        return ROOT / self.name

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        return [Block(*match) for match in _BLOCK.findall(self.text)]

    @cached_property
    def prose(self) -> str:
        """The text without code blocks."""
        return _BLOCK.sub("", self.text)

    @cached_property
    def commands(self) -> list[str]:
        """The commands of the unlabelled blocks, here-documents included."""
        return _COMMAND.findall("".join(block.code for block in self.blocks if not block.language))

    def code(self, language: str) -> list[str]:
        """The contents of the blocks with this label."""
        return [block.code for block in self.blocks if block.language == language]

    @property
    def snippets(self) -> Iterator[str]:
        """Every line of the unlabelled blocks, and every piece of inline code."""
        for block in self.blocks:
            if not block.language:
                yield from block.code.splitlines()
        yield from _INLINE_CODE.findall(self.prose)

    @cached_property
    def links(self) -> list[str]:
        """Targets of links within the repository; an anchor is included."""
        return _LINK.findall(self.prose)

    @cached_property
    def anchors(self) -> set[str]:
        """Anchors of the headings, as GitHub builds them."""
        seen, anchors = Counter[str](), set[str]()
        for heading in _HEADING.findall(self.prose):
            title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
            slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
        return anchors

    def linked_file(self, link: str) -> Path:
        """The file that a link of this document leads to."""
        target = link.partition("#")[0]
        return (self.path.parent / target).resolve() if target else self.path


def _documents() -> list[Document]:
    patterns = ("*.md", ".github/**/*.md", "benchmarks/**/*.md", "deploy/**/*.md", "docs/**/*.md")
    paths = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return [Document(path.relative_to(ROOT).as_posix()) for path in sorted(paths)]


DOCUMENTS = _documents()
README = Document("README.md")
API = Document("docs/api.md")
OPERATIONS = Document("docs/operations.md")
SCORING = Document("docs/scoring.md")
TRAINING = Document("docs/training.md")
