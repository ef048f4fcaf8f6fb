"""A file of a source, how it is to be read, and the raw records that come out of it.

Usage: `file = SourceFile(Path("qa.jsonl.gz"), "qa.jsonl.gz")`; `file.format` is ".jsonl", `file.packing` is ".gz".

It opens nothing: formats are read by their own modules in this folder, through `common.data.manifest.readers`.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from common.store.cache import known_digest

_log = logging.getLogger(__name__)
TEXTS = (".txt", ".md")
TABLES = (".csv", ".tsv")
LINES = (".jsonl", ".ndjson")
ARROW = (".arrow", ".feather")
PAGES = (".html", ".htm", ".xhtml")
DOCUMENTS = (*PAGES, ".pdf", ".docx", ".epub", ".warc")
FORMATS = (*LINES, ".json", *TABLES, ".parquet", *ARROW, *TEXTS, *DOCUMENTS)
PACKINGS = (".gz", ".bz2", ".xz", ".zst")
NEVER_PACKED = (".parquet", *ARROW, ".pdf", ".docx", ".epub")
READABLE = (
    f"{', '.join(FORMATS)}; all but {', '.join(form[1:] for form in NEVER_PACKED)} also packed as {', '.join(PACKINGS)}"
)


def _ignore(_: Any) -> None:
    """Stand in for nobody who wants to know."""


@functools.lru_cache(maxsize=65536)
def split_suffix(name: str) -> tuple[str, str]:
    """Return the format and the packing that a file's name ends in: `.jsonl` and `.gz`; '' where there is none."""
    path = Path(name.lower())
    packing = path.suffix if path.suffix in PACKINGS else ""
    return Path(path.name.removesuffix(packing)).suffix, packing


def is_readable(name: str) -> bool:
    """Whether a file's name ends in a format that can be read, packed or not."""
    form, packing = split_suffix(name)
    return form in FORMATS and not (packing and form in NEVER_PACKED)


MOST_ALIKE = 3  # findings that are listed of one kind
_NUMBERS = re.compile(r"0x[0-9a-f]+|[0-9]+")


class Findings:
    """What was found out about the data of one source: each finding once, in the log and to be listed.

    Of those that differ in the file and in numbers alone the first few are listed, and how many more.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._found: dict[str, dict[str, None]] = {}  # what they have in common -> each message

    def __call__(self, message: str, *, file: str = "") -> None:
        alike = self._found.setdefault(_NUMBERS.sub("", message.replace(file, "") if file else message), {})
        if message not in alike:
            alike[message] = None
            if len(alike) <= MOST_ALIKE:
                _log.info("source %s: %s", self.source, message)

    @property
    def messages(self) -> list[str]:
        """The findings as they are listed."""
        listed = []
        for alike in self._found.values():
            listed += list(alike)[:MOST_ALIKE]
            if more := len(alike) - MOST_ALIKE:
                listed += [f"and {more:,} more like it"] if more > 0 else []
        return listed


class SourceFile(NamedTuple):
    """A file, or a folder with the shards of one data set, and the name that messages give it (its path below the data
    folder)."""

    path: Path
    name: str
    on_read: Callable[[float], None] = _ignore  # takes how many of its bytes have been read, ever more
    tell: Callable[[str], None] = _ignore  # takes what was found out about it: a delimiter, an encoding
    shards: tuple[Path, ...] = ()  # of a folder, in their order

    @property
    def format(self) -> str:
        return ARROW[0] if self.shards else split_suffix(self.path.name)[0]

    @property
    def packing(self) -> str:
        return "" if self.shards else split_suffix(self.path.name)[1]

    @property
    def size(self) -> int:
        """The bytes on disk."""
        return sum(path.stat().st_size for path in self.shards or (self.path,))

    @property
    def digest(self) -> str:
        """What identifies the content: the file's SHA-256, or one over those of the shards in their order."""
        if not self.shards:
            return known_digest(self.path)
        return hashlib.sha256(" ".join(map(known_digest, self.shards)).encode()).hexdigest()


class Reading(NamedTuple):
    """How the files of a source are to be read. What is None is found out from a file, and reported."""

    unit: str = "paragraph"  # txt, md and documents: what makes a record
    header: tuple[str, ...] | None = None  # csv and tsv without a line of names: the names
    delimiter: str | None = None
    quoting: bool | None = None
    encoding: str | None = None
    records: str | None = None  # json: the key whose list holds the records
    columns: tuple[str, ...] = ()  # those that are used, as `a` or `a.0.b`; none named: all of them
    pdf: str = "pypdf"  # what reads PDFs


class Flaw(NamedTuple):
    """Why a record cannot be used: the reason that is counted, and what the log says of the first such record."""

    reason: str
    detail: str


class Record(NamedTuple):
    """One raw record and its place, such as `qa.jsonl, line 12`, or `qa.json, item 3, questions 2` inside one."""

    where: str
    value: dict[str, Any]
    inside: bool = False  # an item of a list in a record of the file
    flaw: Flaw | None = None  # a record that is dropped, and why; `value` is empty then
    file: int = 0  # of a source with several files the place of the record's own among them, from 1
    joined: int = 0  # how many more records of the file are in this one

    @property
    def number(self) -> str:
        """The place alone: `12`, or `3.2` inside a record; of the second of several files `2.12`."""
        inside = [part.rsplit(" ", 1)[-1] for part in self.where.rsplit(", ", 1 + self.inside)[1:]]
        return ".".join([*([str(self.file)] if self.file else []), *inside])
