"""Find values in nested records, and turn them into the texts that rows are made of.

Usage: `lookup(record, "paragraphs.*.text")`; `joined([["2019", "5"], ["2018", "4"]], "context")`.

It knows nothing of sources or roles: which column becomes what is `common.data.manifest.shapes`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

ABSENT = object()
_UNSEEN = object()


class UnusableRow(Exception):
    """The record gives no row; the message is the reason that is counted, `detail` what this one held."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


def as_written(value: Any) -> str:
    """Return what stands in JSON for a value that JSON has not. Raises UnusableRow for bytes that are no text."""
    if isinstance(value, bytes):
        raise UnusableRow("bytes that are no text")
    return str(value)


def folded(text: str) -> str:
    """Return a choice as it is compared with others: no case, single blanks, no closing full stop."""
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()


def lookup(record: Any, column: str) -> Any:
    """Return the value of a column, or ABSENT.

    `instances.0.output` reaches into lists and objects; `paragraphs.*.text` gives the texts of all items as a list.
    """
    found = _find(record, column)
    return ABSENT if found is _UNSEEN else found


def lacks(record: Any, column: str) -> bool:
    """Whether no record of this kind can have the column; an empty list or null on the way tells nothing."""
    return _find(record, column) is ABSENT


def _find(record: Any, column: str) -> Any:
    if isinstance(record, Mapping) and column in record:
        return record[column]
    return _reach(record, column.split("."))


def _reach(value: Any, parts: Sequence[str]) -> Any:
    """Return what a value has at a place, or else ABSENT, or _UNSEEN where a null or short list hides it."""
    if not parts:
        return value
    part, rest = parts[0], parts[1:]
    if isinstance(value, Mapping) and part in value:
        return _reach(value[part], rest)
    if isinstance(value, list) and part.isdecimal():
        return _reach(value[int(part)], rest) if int(part) < len(value) else _UNSEEN
    if isinstance(value, list) and part == "*":  # items without it are left out; a second `*` gives one flat list
        items = [_reach(item, rest) for item in value]
        found = [item for item in items if item is not ABSENT and item is not _UNSEEN]
        if items and not found:
            return ABSENT if all(item is ABSENT for item in items) else _UNSEEN
        return [item for inner in found for item in inner] if "*" in rest else found
    return _UNSEEN if value is None else ABSENT


def text_of(value: Any, name: str) -> str:
    """Return a text as it is. Raises UnusableRow when it is missing, empty, no text, or cannot be encoded."""
    if value is None or value is ABSENT:
        raise UnusableRow(f"empty {name}")
    if not isinstance(value, str):
        raise UnusableRow(f"{name} is no text")
    if not value.strip():
        raise UnusableRow(f"empty {name}")
    return encodable(value, name)


def encodable(text: str, name: str) -> str:
    """Return a text as it is. Raises UnusableRow for half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnusableRow(f"broken characters in {name}") from None
    return text


def joined(value: Any, name: str) -> str:
    """Return a text without outer blanks, '' for nothing; texts are joined by a blank line, a table row by row."""
    if value is None or value is ABSENT or (isinstance(value, str) and not value.strip()):
        return ""
    if not isinstance(value, list):
        return text_of(_written(value), name).strip()
    if value and all(isinstance(row, list) for row in value):
        rows = [" | ".join(joined(cell, name).replace("\n", " ") for cell in row).rstrip() for row in value]
        return "\n".join(row for row in rows if row.strip(" |"))
    return "\n\n".join(text for item in value if (text := joined(item, name)))


def answer_of(value: Any, name: str = "answer") -> str:
    """Return an answer as text: a number is written out, a list joined by commas. Raises UnusableRow without one."""
    if isinstance(value, list):
        return text_of(", ".join(answer_of(item, name) for item in value), name)
    return text_of(_written(value), name).strip()


def _written(value: Any) -> Any:
    """Write a number out, 5.0 as 5; anything else is returned as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    return str(int(value) if value == int(value) else value)
