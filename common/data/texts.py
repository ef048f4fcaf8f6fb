"""The texts inside a row of any kind: read them all, or change each of them.

Usage: `list(texts_of(row))`; `row = map_texts(row, str.strip)`; `noted(row, "mail masked")`.

Kinds of rows are described in `common.data.corpus`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from common.config.json import every_text
from common.data.corpus import Row

# Texts that a row was woven of, as they stood before: the exam is looked for in them too, and nothing learns them.
UNWOVEN = "unwoven"
TURNS = ("messages", "prompt", "chosen", "rejected", "completion")  # keys of a row that hold lists of messages


def texts_of(row: Row) -> Iterator[str]:
    """Yield each piece of text that a training row would teach."""
    if "text" in row:
        yield row["text"]
    for name in TURNS:
        for message in row.get(name, ()):
            yield message["content"]
            yield message.get("reasoning_content") or ""
            for call in message.get("tool_calls") or ():
                yield from _strings(call["function"].get("arguments"))


def map_texts(row: Row, change: Callable[[str], str]) -> Row:
    """Return a row with every text changed, those in arguments of tool calls too; the same row where none differs."""
    found = dict(row)
    if "text" in row:
        found["text"] = change(row["text"])
    for name in TURNS:
        if name in row:
            found[name] = [_map_message(message, change) for message in row[name]]
    return row if found == row else found


def utf8_size(texts: Iterable[str]) -> int:
    """Return the bytes of some texts in UTF-8."""
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def noted(row: Row, what: str) -> Row:
    """Return a row that says what was done to it; such notes are counted, and taken off before it is used."""
    return row | {"changed": (*row.get("changed", ()), what)}


def lines_of(text: str) -> list[str]:
    """Return the lines of a text with their ends; those that hold more than blanks are what may have a score."""
    return text.splitlines(keepends=True)


def with_score(row: Row, name: str, score: float) -> Row:
    """Return a row that keeps a score, by which training may order it."""
    return row | {"scores": {**row.get("scores", {}), name: score}}


def _map_message(message: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    found = dict(message)
    for name in ("content", "reasoning_content"):
        if message.get(name):
            found[name] = change(message[name])
    if message.get("tool_calls"):
        found["tool_calls"] = []
        for call in message["tool_calls"]:
            given = every_text(call["function"].get("arguments"), change, keys=False)
            found["tool_calls"].append({**call, "function": {**call["function"], "arguments": given}})
    return found


def _strings(value: Any) -> Iterator[str]:
    """Yield every text inside a value, names of keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.items():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
