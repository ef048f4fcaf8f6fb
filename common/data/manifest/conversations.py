"""Make the conversation of a row: its turns in order, system text and tools that stand beside it.

Usage: `found = conversation(source, record, cell(source, record, "messages"), "messages", changes)`.

Pairs of answers and single answers are `common.data.manifest.pairs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.data.corpus import Row
from common.data.manifest.calls import read_tools
from common.data.manifest.cells import cell, joined_cells
from common.data.manifest.columns import MEDIA, USUAL_SYSTEM, USUAL_TOOLS
from common.data.manifest.messages import Message, read_messages
from common.data.manifest.readers import Record
from common.data.manifest.schema import Source
from common.data.manifest.turn_order import fold_system, in_order
from common.data.manifest.values import UnusableRow, joined


def conversation(
    source: Source, record: Record, value: Any, name: str, changes: list[str], *, answered: bool = True
) -> list[Message]:
    """Return the turns of a conversation that a column holds, the system text of its record first."""
    turns = arranged(source, record, read_messages(value, name, changes), changes, answered=answered)
    return folded(source, turns, changes)


def arranged(
    source: Source, record: Record, messages: list[Message], changes: list[str], *, answered: bool = True
) -> list[Message]:
    """Return turns in order, with the system text that stands beside them."""
    _check_media(record)
    if text := _system(source, record):
        if messages and messages[0]["role"] == "system" and messages[0]["content"].strip():
            if messages[0]["content"].strip() != text:
                changes.append("system text beside a conversation that has its own left out")
        else:
            messages = [{"role": "system", "content": text}, *messages]
    return in_order(messages, fix=source.turns == "fix", changes=changes, answered=answered)


def folded(source: Source, turns: list[Message], changes: list[str]) -> list[Message]:
    """Return turns with the system text in the first of the user's, where the source asks for it."""
    return fold_system(turns, changes) if source.system_turns == "fold" else turns


def with_tools(source: Source, record: Record, row: Row, changes: list[str]) -> Row:
    """Return a row with the tools that its record names, in OpenAI's shape."""
    try:
        tools = read_tools(cell(source, record, "tools", USUAL_TOOLS))
    except UnusableRow:
        if "tools" in source.columns:
            raise
        changes.append("tools that are no function schemas left out")
        return row
    return row | {"tools": tools} if tools else row


def with_changes(row: Row, changes: list[str]) -> Row:
    """Return a row with what was changed in it, each once; as it is where nothing was."""
    return row | {"changed": tuple(dict.fromkeys(changes))} if changes else row


def _system(source: Source, record: Record) -> str:
    if "system" in source.columns:
        return joined_cells(source, record, "system")
    found = cell(source, record, "system", USUAL_SYSTEM)
    return joined(found, "system") if isinstance(found, str) else ""


def _check_media(record: Record) -> None:
    """Raise UnusableRow for a conversation about pictures or sounds beside it, whether its text marks them or not."""
    for columns in MEDIA:
        if any(_holds(record.value.get(column)) for column in columns):
            raise UnusableRow(f"a conversation about {columns[1]}, which are not supported")


def _holds(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_holds, value))
    return isinstance(value, str | Mapping | bytes) and len(value) > 0
