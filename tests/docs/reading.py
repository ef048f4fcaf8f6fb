"""Read the documents: their fenced blocks, inline code, links and headings.

Usage: `for block in blocks(path): block.kind, block.text`; `DOCUMENTS` are all of them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

DOCUMENTS = sorted(
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/*.md", "domains/*/README.md")
    for path in REPOSITORY.glob(pattern)
)
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what it is (`pipeline`, `manifest`, …), the name of its file, and its text."""

    path: Path
    line: int
    language: str
    kind: str
    name: str
    text: str
    reason: str  # why it is not run; empty where it is

    def __str__(self) -> str:
        return f"{name_of(self.path)}:{self.line}"


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def blocks(path: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a document."""
    text = path.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        language, kind, name = [*found["info"].split(), "", "", ""][:3]
        line = text.count("\n", 0, found.start("info")) + 1
        yield Block(path, line, language, kind, name, found["text"], found["reason"] or "")


def prose(path: Path) -> str:
    """Return a document without its fenced blocks."""
    return BLOCK.sub("", path.read_text(encoding="utf-8"))


def inline(path: Path) -> list[str]:
    """Return what stands between single backticks outside the blocks; a paragraph's line ends count as spaces."""
    text = re.sub(r"(?<!\n)\n(?![\n|#*-])", " ", prose(path))
    return INLINE.findall(text)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the commands of a shell block as lists of arguments: continued lines joined, comments left out."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s&&\s", line):
            arguments = shlex.split(part.removeprefix("$ "), comments=True)
            if arguments:
                yield arguments


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
